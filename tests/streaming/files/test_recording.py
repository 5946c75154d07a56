"""Recording a stream as it comes: everything, once, in a file that is playable at every moment."""

from __future__ import annotations

import asyncio
import io
import json
import os
import resource

import numpy as np
import pytest

from streaming.cli import client
from streaming.errors import SinkError
from streaming.files.muc import Clock, Finish, MucReader, StreamHeader
from streaming.files.muc.append import Survey
from streaming.files.muc.framing import MAGIC, frame
from streaming.files.recorder import Recorder
from streaming.files.recording import Recording, record
from streaming.listening import Origin
from streaming.receive.settings import ListenerSettings
from streaming.stream.listener_session import ListenerSession
from streaming.stream.timeline import StartAt
from streaming.stream.traffic import Traffic
from streaming.support.stats import StatsWriter
from streaming.support.status_line import StatusLine
from streaming.transports.link import Link
from streaming.transports.reconnecting import Backoff
from streaming.wire.messages import End, Gap, Hello, Join, Title, Tokens
from tests.support.fake_codec import load_none
from tests.support.limits import limited
from tests.support.listening import BROKEN, Script, hello, token_messages, tokens

ALL = tokens(500)


def greeting(first=0, edge=0, *, stream="s", seed=5, title="Song", at_s=None):
    return Hello(
        "fake",
        "fake-1",
        "a" * 64,
        seed,
        first_token=first,
        next_token=edge,
        age_s=0.0,
        delay_s=0.2,
        packet_tokens=48,
        title=title,
        stream=stream,
        first_at_s=at_s,
    )


def packets(first, end, size=48):
    return [Tokens(at, ALL[at : min(at + size, end)]) for at in range(first, end, size)]


def recorded(path, *, context=False):
    items = MucReader(path).items(context=context)
    pieces = [item.tokens for item in items if isinstance(item, Tokens)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *pieces])


def take(recorder, *events):
    for event in events:
        recorder.take(event)


def test_a_stream_is_recorded_as_it_is(tmp_path):
    recorder = Recorder(tmp_path / "a.muc")
    take(recorder, greeting(100, at_s=1000.0), *packets(100, 196), Title("Next", 150))
    assert np.array_equal(recorded(tmp_path / "a.muc"), ALL[100:196])  # before it is closed
    take(recorder, Gap(196, 4), *packets(200, 300), End(310, "over"))
    recorder.close("never said")
    reader = MucReader(tmp_path / "a.muc")
    assert reader.header == StreamHeader("fake", "fake-1", "a" * 64, 5, "s", 100)
    info = reader.describe()
    assert (info.tokens, info.lost_tokens, info.end_token, info.complete) == (196, 14, 310, True)
    assert info.titles == [Title("Song", 100), Title("Next", 150)]
    assert reader.finish == Finish(310, 0, "over")
    assert (recorder.samples, recorder.bytes) == (210 * 1920, info.file_bytes)
    records = [r for r in reader._records() if isinstance(r, Clock)]
    assert records == [Clock(100, 1000.0)]


def test_a_flood_of_titles_is_not_recorded(tmp_path):
    recorder = Recorder(tmp_path / "a.muc")
    take(recorder, greeting(0), *packets(0, 48))
    take(recorder, *(Title(f"title {n}", 48) for n in range(1000)), *packets(48, 96))
    take(recorder, Title("Next", 96), End(96, "over"))
    recorder.close()
    titles = [title.title for title in MucReader(tmp_path / "a.muc").describe().titles]
    assert titles == ["Song", *(f"title {n}" for n in range(16)), "title 999", "Next"]


def test_it_goes_on_in_the_file_that_is_there(tmp_path):
    path = tmp_path / "a.muc"
    recorder = Recorder(path)
    take(recorder, greeting(0), *packets(0, 96))
    recorder.close("stopped")
    with path.open("ab") as file:
        file.write(b"\xf3\x50torn")
    recorder = Recorder(path)
    assert recorder.join(Join(256, "me")) == Join(256, "me", next_token=96, stream="s")
    take(recorder, greeting(48, 144), *packets(48, 240), End(240, "over"))
    recorder.close()
    info = MucReader(path).describe()
    assert (info.tokens, info.gaps, info.damaged_bytes, info.complete) == (240, 0, 0, True)
    assert np.array_equal(recorded(path), ALL[:240])


@pytest.mark.parametrize(
    "other", [greeting(0, stream="t"), greeting(0, seed=6), greeting(0, stream=""), greeting(0, 50)]
)
def test_another_stream_goes_into_another_file(tmp_path, other):
    path = tmp_path / "a.muc"
    for begins in (greeting(0), other, other):
        recorder = Recorder(path)
        take(recorder, begins, *packets(0, 96))
        recorder.close("stopped")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-2.muc", "a-3.muc", "a.muc"]
    assert all(len(recorded(p)) == 96 for p in tmp_path.iterdir())


def test_another_stream_in_the_middle_goes_into_another_file_as_well(tmp_path):
    recorder = Recorder(tmp_path / "a.muc")
    take(recorder, greeting(0), *packets(0, 96))
    take(recorder, greeting(0, stream="t"), *packets(0, 48))
    assert recorder.path == tmp_path / "a-2.muc"
    assert recorder.samples == 144 * 1920
    take(recorder, greeting(30_000, 30_000, stream="t"))  # the same, after too long a gap
    assert recorder.path == tmp_path / "a-2.muc"
    recorder.close("stopped")
    assert len(recorded(tmp_path / "a.muc")) == 96


@pytest.mark.parametrize(("samples", "count"), [(1, 1), (1920, 1), (1921, 2), (60 * 1920 - 7, 60)])
def test_it_ends_where_it_was_told_to_the_sample(tmp_path, samples, count):
    recorder = Recorder(tmp_path / "a.muc", samples)
    for event in (greeting(0), *packets(0, 240)):
        if not recorder.full:
            recorder.take(event)
    assert recorder.full
    recorder.close("enough")
    info = MucReader(tmp_path / "a.muc").describe()
    assert (info.tokens, info.samples, info.complete) == (count, samples, True)


@pytest.mark.parametrize("count", [15_001, 90_000, 2**31])
def test_a_gap_that_is_closed_does_not_count_for_the_limit(tmp_path, count):
    path, behind = tmp_path / "a.muc", 48 + count
    recorder = Recorder(path, 144 * 1920)
    take(recorder, greeting(0), *packets(0, 48), Gap(48, 10_000), Gap(10_048, count - 10_000))
    assert recorder.samples == 48 * 1920
    take(recorder, Tokens(behind, ALL[48:96]))
    assert (recorder.full, recorder.samples) == (False, 96 * 1920)
    recorder.close()
    assert MucReader(path).describe().samples == 96 * 1920
    # Another program that goes on in the file counts alike.
    recorder = Recorder(path, 144 * 1920)
    take(recorder, greeting(behind, behind + 96), Tokens(behind + 48, ALL[96:160]))
    assert (recorder.full, recorder.samples) == (True, 144 * 1920)
    recorder.close("enough")
    info = MucReader(path).describe()
    assert (info.tokens, info.samples, info.complete) == (144, 144 * 1920, True)


def test_a_gap_counts_for_the_limit(tmp_path):
    recorder = Recorder(tmp_path / "a.muc", 100 * 1920)
    take(recorder, greeting(0), *packets(0, 48), Gap(48, 400))
    recorder.close("enough")
    info = MucReader(tmp_path / "a.muc").describe()
    assert (info.samples, info.lost_tokens) == (100 * 1920, 52)


def described(path):
    info = MucReader(path).describe()
    header = info.header
    return header.first_token, info.first_token, info.end_token, info.samples


def test_what_is_recorded_is_what_is_heard_and_what_was_sent_before_is_context(tmp_path):
    recorder = Recorder(tmp_path / "a.muc", 100 * 1920 - 5, waits=True)
    beginning = greeting(0, 192, title="Before")
    take(recorder, beginning, *packets(0, 96), Title("Past", 50), Title("Heard", 60))
    take(recorder, Title("Soon", 125), *packets(96, 192))
    assert not (tmp_path / "a.muc").exists()
    recorder.hear(beginning, 120, 0)
    take(recorder, Title("Next", 200), *packets(192, 336))
    assert recorder.full
    recorder.close("enough")
    assert described(tmp_path / "a.muc") == (0, 120, 220, 100 * 1920 - 5)
    assert np.array_equal(recorded(tmp_path / "a.muc"), ALL[120:220])
    titles = MucReader(tmp_path / "a.muc").describe().titles
    assert titles == [Title("Heard", 120), Title("Soon", 125), Title("Next", 200)]
    assert np.array_equal(recorded(tmp_path / "a.muc", context=True), ALL[:220])


def test_what_begins_and_is_not_heard_is_not_recorded(tmp_path):
    recorder = Recorder(tmp_path / "a.muc", waits=True)
    first, second, third = (greeting(0, 48, stream=name) for name in "abc")
    take(recorder, first, *packets(0, 48), second, *packets(0, 96), third, *packets(0, 48))
    recorder.hear(second, 10, 0)
    take(recorder, *packets(48, 96))
    recorder.close("stopped")
    assert [path.name for path in tmp_path.iterdir()] == ["a.muc"]
    assert MucReader(tmp_path / "a.muc").header.stream == "b"
    assert described(tmp_path / "a.muc") == (0, 10, 96, 86 * 1920)


def test_the_limit_is_that_of_all_that_is_heard(tmp_path):
    recorder = Recorder(tmp_path / "a.muc", 100 * 1920, waits=True)
    first, second = greeting(0, stream="a"), greeting(0, stream="b")
    take(recorder, first)
    recorder.hear(first, 0, 0)
    take(recorder, *packets(0, 96), second)
    recorder.hear(second, 0, 70 * 1920)  # what else had come was left out
    take(recorder, *packets(0, 96))
    recorder.close("enough")
    assert described(tmp_path / "a.muc")[2] == 96
    assert described(tmp_path / "a-2.muc") == (0, 0, 30, 30 * 1920)


def test_what_waits_to_be_heard_is_bounded(tmp_path):
    recorder = Recorder(tmp_path / "a.muc", waits=True)
    beginning = greeting(0, 2**31)
    take(recorder, beginning, *(Tokens(48 * n, ALL[:48]) for n in range(3000)))
    recorder.hear(beginning, 48 * 2999, 0)
    recorder.close("stopped")
    assert described(tmp_path / "a.muc")[1:3] == (48 * 2999, 48 * 3000)


@pytest.mark.parametrize(
    ("place", "first", "heard"), [("token:150", 0, 150), ("-1m", 100, 356), ("live", 9, 9)]
)
def test_without_a_player_it_begins_where_one_would_hear_the_past(tmp_path, place, first, heard):
    path = tmp_path / "a.muc"
    recorder = Recorder(path, 20 * 1920, start=StartAt.parse(place))
    take(recorder, greeting(first, 480), *packets(first, 480))
    recorder.close("enough")
    assert described(path) == (first, heard, heard + 20, 20 * 1920)


def test_a_stretch_from_elsewhere_goes_into_another_file(tmp_path):
    for place, name in (("token:0", "a"), ("token:20", "a"), ("token:300", "a-2")):
        recorder = Recorder(tmp_path / "a.muc", 50 * 1920, start=StartAt.parse(place))
        take(recorder, greeting(0, 480), *packets(0, 480))
        recorder.close("enough")
        assert recorder.path.stem == name
    assert described(tmp_path / "a.muc") == (0, 0, 50, 50 * 1920)
    assert described(tmp_path / "a-2.muc") == (0, 300, 350, 50 * 1920)


def test_two_programs_do_not_record_to_one_file(tmp_path):
    path = tmp_path / "a.muc"
    first, late = Recorder(path), Recorder(path)
    take(first, greeting(0), *packets(0, 96))
    with pytest.raises(SinkError, match=r"Another program records to '.*a\.muc'; stop it"):
        Recorder(path)
    take(late, greeting(0), *packets(0, 48))  # began when there was no such file yet
    assert late.path == tmp_path / "a-2.muc"
    take(first, *packets(96, 144))
    for recorder in (first, late):
        recorder.close("stopped")
    assert np.array_equal(recorded(path), ALL[:144])
    assert np.array_equal(recorded(tmp_path / "a-2.muc"), ALL[:48])
    Recorder(path).close()  # the lock has gone with its holder


@pytest.mark.parametrize("count", [15_001, 90_000, 2**31])
def test_what_goes_on_behind_a_gap_that_is_closed_counts_for_the_limit_as_it_plays(tmp_path, count):
    path, behind = tmp_path / "a.muc", 48 + count
    recorder = Recorder(path, 144 * 1920)
    take(recorder, greeting(0), *packets(0, 48), Gap(48, count))
    assert (recorder.full, recorder.samples) == (False, 48 * 1920)
    take(recorder, Tokens(behind, ALL[48:96]))
    assert (recorder.full, recorder.samples) == (False, 96 * 1920)
    recorder.close()
    # Another program that goes on in the file, behind such a gap once more, counts alike.
    recorder = Recorder(path, 144 * 1920)
    again = behind + 20_000
    take(recorder, greeting(again, again + 96), Tokens(again, ALL[96:160]))
    assert (recorder.full, recorder.samples) == (True, 144 * 1920)
    recorder.close("enough")
    info = MucReader(path).describe()
    assert (info.tokens, info.samples, info.complete) == (144, 144 * 1920, True)


def test_a_sender_that_begins_anew_each_time_does_not_fill_the_folder(tmp_path):
    recorder = Recorder(tmp_path / "a.muc")
    for number in range(1000):
        take(recorder, greeting(0, stream=f"empty {number}"))
    assert not list(tmp_path.iterdir())
    for number in range(100):
        take(recorder, greeting(0, stream=f"{number}"), *packets(0, 48))
    with pytest.raises(SinkError, match="again and again: 100 files"):
        take(recorder, greeting(0, stream="one more"), *packets(0, 48))
    recorder.close()
    assert len(list(tmp_path.iterdir())) == 100


def test_a_disk_that_is_full_leaves_a_file_without_damage(tmp_path):
    recorder = Recorder(tmp_path / "a.muc")
    take(recorder, greeting(0), *packets(0, 48))
    with limited(resource.RLIMIT_FSIZE, 1000), pytest.raises(SinkError, match="File too large"):
        take(recorder, *packets(48, 480))
    recorder.close()
    info = MucReader(tmp_path / "a.muc").describe()
    assert (info.damaged_bytes, info.complete, info.lost_tokens) == (0, False, 0)
    assert np.array_equal(recorded(tmp_path / "a.muc"), ALL[: info.tokens])
    recorder = Recorder(tmp_path / "a.muc")
    assert recorder.join(Join()).next_token == info.tokens
    recorder.close()


def test_a_pipe_or_device_is_nothing_to_record_to(tmp_path):
    os.mkfifo(tmp_path / "a.muc")
    with pytest.raises(SinkError, match="no file that one could record to"):
        Recorder(tmp_path / "a.muc")


def test_places_that_cannot_be_written_are_said(tmp_path):
    (tmp_path / "music.muc").write_text("This is no music.")
    (tmp_path / "folder.muc").mkdir()
    for name, told in {
        "a.wav": "must end in .muc",
        "none/a.muc": "no such folder",
        "music.muc": "no .muc file; choose another",
        "folder.muc": "directory",
    }.items():
        with pytest.raises(SinkError, match=told):
            Recorder(tmp_path / name)


def test_a_disk_that_fails_is_said(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.muc")
    take(recorder, greeting(0), *packets(0, 48))

    def fail(record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder._file, "append", fail)
    with pytest.raises(SinkError, match="No space left on device"):
        take(recorder, *packets(48, 96))
    recorder.close("over")


async def recorded_link(path, *connections, limit=None, stop=None):
    """Record a scripted stream to its end; returns the figures."""
    waiting = list(connections)

    async def dial():
        return waiting.pop(0)

    async def at_once(seconds):
        await asyncio.sleep(0)

    session = ListenerSession(None)
    link = Link(session, waiting.pop(0), dial if waiting else None, sleep=at_once)
    recording = Recording(Recorder(path, limit))
    await record(link, recording, stop or asyncio.Event())
    return recording.figures(link)


async def test_a_recording_comes_back_after_a_break_and_misses_nothing(tmp_path):
    path = tmp_path / "a.muc"
    first = Script(hello(0, 0, stream="s"), *token_messages(ALL[:96]), then=BROKEN)
    end = End(240, "over").encode()
    second = Script(hello(96, 192, stream="s"), *token_messages(ALL[:240], 96), end)
    figures = await recorded_link(path, first, second)
    assert np.array_equal(recorded(path), ALL[:240])
    assert MucReader(path).describe().complete
    assert (figures["tokens"], figures["reconnects"]) == (240, 1)
    assert (figures["samples"], figures["lost_tokens"]) == (240 * 1920, 0)
    assert figures["bytes"] == path.stat().st_size


async def test_a_connection_that_is_lost_for_good_leaves_what_came(tmp_path):
    path = tmp_path / "a.muc"
    script = Script(hello(0, 0, stream="s"), *token_messages(ALL[:96]), then=BROKEN)
    with pytest.raises(type(BROKEN)):
        await recorded_link(path, script)
    info = MucReader(path).describe()
    assert (info.tokens, info.complete) == (96, False)


async def test_a_recording_ends_when_there_is_enough_or_when_it_is_stopped(tmp_path):
    script = Script(hello(0, 0, stream="s"), *token_messages(ALL), then="stay")
    await recorded_link(tmp_path / "a.muc", script, limit=100_000)
    assert MucReader(tmp_path / "a.muc").describe().samples == 100_000
    stop = asyncio.Event()
    script = Script(hello(0, 0, stream="s"), *token_messages(ALL[:48]), then="stay")
    recording = asyncio.create_task(recorded_link(tmp_path / "b.muc", script, stop=stop))
    while not (tmp_path / "b.muc").exists() or Survey.of(tmp_path / "b.muc").next_token < 48:
        await asyncio.sleep(0.01)
    stop.set()
    await recording
    info = MucReader(tmp_path / "b.muc").describe()
    assert (info.tokens, info.complete) == (48, True)


async def test_beside_the_music_a_recording_that_fails_is_a_warning(tmp_path, caplog, monkeypatch):
    recorder = Recorder(tmp_path / "a.muc")
    recording = Recording(recorder)
    await recording.take(greeting(0))
    await recording.take(packets(0, 48)[0])

    def fail(record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder._file, "append", fail)
    for packet in packets(0, 480):
        await recording.take(packet)
    await recording.close("stopped")
    assert caplog.text.count("no more is recorded") == 1
    assert not MucReader(tmp_path / "a.muc").describe().complete


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--save", "{}/a.wav"], "must end in .muc"),
        (["--save", "{}/none/a.muc"], "no such folder"),
        (["--save", "{}/a.muc"], "Nothing listens"),
        (["http://x", "--save", "{}/a.muc"], "ws://HOST:PORT"),
        (["{}/none.muc", "--out", "{}/a.wav"], r"none\.muc' cannot be read"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_sentence(tmp_path, capsys, arguments, told):
    words = [word.format(tmp_path) for word in arguments]
    if not words[0].endswith(".muc") and not words[0].startswith("http"):
        words.insert(0, "ws://127.0.0.1:1")
    assert client.main(words, load_none) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("client.py: ")
    import re

    assert re.search(told, line)
    assert not (tmp_path / "a.muc").exists()


def test_a_recording_of_a_later_version_is_not_gone_on_with(tmp_path):
    header = StreamHeader("fake", "fake-1", "a" * 64).encode().replace(b":1,", b":2,", 1)
    (tmp_path / "a.muc").write_bytes(MAGIC + frame(header))
    with pytest.raises(SinkError, match="update the program"):
        Recorder(tmp_path / "a.muc")


async def test_losses_and_outages_are_shown_while_it_runs(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "a.muc"
    first = Script(hello(0, 0, stream="s"), *token_messages(ALL[:96]), then=BROKEN)
    second = Script(hello(144, 240, stream="s"), End(240, "over").encode())
    connections, waiting = iter((first, second)), asyncio.Event()
    waiting.set()

    async def dial():
        await waiting.wait()
        waiting.clear()
        return next(connections)

    origin = Origin(dial, Traffic(), StartAt())
    settings = ListenerSettings(backoff=Backoff(0.001, 0.001))
    status = StatusLine(io.StringIO(), plain_interval_s=0.0)
    stats = StatsWriter(tmp_path / "stats.jsonl")
    recording = asyncio.create_task(
        client.record_stream(Recorder(path), origin, settings, stats, status, asyncio.Event())
    )
    while "no connection" not in caplog.text:
        await asyncio.sleep(0.01)
    while not (tmp_path / "stats.jsonl").read_text():
        await asyncio.sleep(0.01)
    waiting.set()
    await recording
    assert "lost tokens 144, reconnects 1" in caplog.text
    last = json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])
    assert (last["final"], last["lost_tokens"], last["title"]) == (True, 144, "Song")
    assert MucReader(path).describe().lost_tokens == 144
