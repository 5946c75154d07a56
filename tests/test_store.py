"""The stream on disk: killed in the middle, damaged, gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming import store as store_module
from streaming.errors import SettingsError
from streaming.hub import Hub, StreamInfo
from streaming.muc import Clock, MucReader, StreamHeader
from streaming.muc.append import MucAppender
from streaming.muc.framing import MAGIC, frame
from streaming.parsing import decode
from streaming.protocol import Gap, Hello, Join, Title, Tokens
from streaming.session import ListenerSession
from streaming.store import TokenStore, restore, stored_place

ROOT = Path(__file__).parent.parent
KEEP = 100_000


def open_store(folder, *, codec="nano", digest="a" * 64, stream="", **changes):
    identity = StreamHeader(codec, f"{codec}-1", digest, stream=stream)
    return TokenStore(folder, identity, **{"keep_tokens": KEEP, **changes})


def packet(first, count=48):
    return Tokens(first, (np.arange(first, first + count) * 7) % 16_384)


def fill(folder, packets, **changes):
    store = open_store(folder, **changes)
    for index in range(packets):
        store.tokens(packet(48 * index), 1000.0 + 1.92 * (index + 1))
    store.close()
    return store.identity


def held(folder):
    store = open_store(folder)
    tokens = [record for record in store.records() if isinstance(record, Tokens)]
    store.close()
    return tokens


def test_what_was_stored_is_there_again_with_the_same_numbers_and_name(tmp_path):
    folder = tmp_path / "new" / "store"
    identity = fill(folder, 10, seed=7)
    store = open_store(folder)
    assert store.identity == identity
    assert (store.identity.seed, store.next_token) == (7, 480)
    store.title(Title("Song", 480))
    store.tokens(packet(480), 1021.12)
    store.gap(Gap(528, 12))
    store.close()
    store.close()
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 7, 48, identity.stream), history_tokens=KEEP)
    store = open_store(folder)
    restore(hub, store)
    hub.go_on_at(store.next_token)
    store.close()
    assert hub.next_token == store.next_token == 540
    assert hub.title == "Song"
    outbox = hub.join(Join(next_token=0), 0.0)
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(decode(message))
    assert isinstance(messages[0], Hello)
    assert messages[0].first_at_s == pytest.approx(1000.0)
    tokens = np.concatenate([m.tokens for m in messages if isinstance(m, Tokens)])
    assert np.array_equal(tokens, packet(0, 528).tokens)
    assert messages[-1] == Gap(528, 12)


@pytest.mark.parametrize("hole", [48, 16_000, 90_000, 2**31])
@pytest.mark.parametrize("keep", [KEEP, 2**32])
def test_a_hole_of_any_length_is_a_gap_for_who_listens_to_the_past(tmp_path, hole, keep):
    fill(tmp_path, 10)
    store = open_store(tmp_path)
    for index in range(10):
        store.tokens(packet(480 + hole + 48 * index), 9000.0 + 1.92 * index)
    store.close()
    store = open_store(tmp_path)
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 7, 48, "s"), history_tokens=keep)
    restore(hub, store)
    store.close()
    session = ListenerSession(None)
    heard: list[Any] = []
    outbox = hub.join(Join(next_token=0), 0.0)
    while (message := outbox.take()) is not None:
        heard += session.receive(message, 0.0)
    behind = [item for item in heard[1:] if isinstance(item, Tokens)]
    assert behind[-1].end_token == 960 + hole
    if hole < keep:
        assert Gap(480, hole) in heard
        assert session.lost_tokens == hole
    else:  # what is before it is no longer held
        assert heard[0].first_token == 480 + hole


@pytest.mark.parametrize("cut", range(1, 98, 7))
def test_a_torn_tail_is_cut_off_and_the_stream_goes_on_before_it(tmp_path, cut):
    fill(tmp_path, 5)
    (segment,) = tmp_path.glob("*.muc")
    os.truncate(segment, segment.stat().st_size - cut)
    store = open_store(tmp_path)
    assert store.next_token == 192
    store.tokens(packet(192), 0.0)
    store.close()
    assert held(tmp_path) == [packet(48 * index) for index in range(5)]


def test_every_segment_can_be_played_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_SEGMENT_BYTES", 600)
    identity = fill(tmp_path, 20, seed=3)
    segments = sorted(tmp_path.glob("*.muc"))
    assert len(segments) > 1
    place = 0
    for segment in segments:
        reader = MucReader(segment)
        assert (reader.header.seed, reader.header.stream) == (3, identity.stream)
        assert reader.header.first_token == place == int(segment.stem)
        for item in reader.items():
            assert item == packet(place)
            place += 48
    assert place == 960


def test_the_hour_is_written_once_a_segment_and_where_the_source_has_slipped(tmp_path):
    store = open_store(tmp_path)
    for index in range(10):
        store.tokens(packet(48 * index), 1000.0 + 1.92 * (index + 1) + 60.0 * (index >= 5))
    clocks = [record for record in store.records() if isinstance(record, Clock)]
    store.close()
    assert clocks == [Clock(0, 1000.0), Clock(240, 1000.0 + 9.6 + 60.0)]


def test_old_segments_go_and_a_long_stream_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_SEGMENT_BYTES", 1000)
    store = open_store(tmp_path, keep_tokens=1000)
    for index in range(200):
        store.tokens(packet(48 * index), 0.0)
    store.close()
    tokens = held(tmp_path)
    assert 1000 <= sum(len(part.tokens) for part in tokens) < 2500
    assert tokens[-1].end_token == 9600


def test_two_senders_cannot_write_to_one_folder(tmp_path):
    store = open_store(tmp_path)
    with pytest.raises(SettingsError, match="Another sender"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"codec": "mucodec"}, "mucodec"), ({"digest": "b" * 64}, "aaaaaaaaaaaa"), ({"seed": 3}, "7")],
)
def test_another_stream_is_not_mixed_in(tmp_path, changes, told):
    fill(tmp_path, 1, seed=7)
    with pytest.raises(SettingsError, match=told):
        open_store(tmp_path, **changes)
    open_store(tmp_path, seed=7).close()


def test_another_name_is_not_mixed_in(tmp_path):
    store = open_store(tmp_path, stream="0123456789abcdef")
    store.tokens(packet(0), 0.0)
    store.close()
    open_store(tmp_path, stream="0123456789abcdef").close()
    with pytest.raises(SettingsError, match="0123456789abcdef"):
        open_store(tmp_path, stream="f" * 16)


@pytest.mark.parametrize("content", [b"\x89MUC", b"x" * 10_000])
def test_a_store_that_is_nothing_but_damage_is_said(tmp_path, content):
    (tmp_path / "0000000000.muc").write_bytes(content)
    with pytest.raises(SettingsError, match=r"0000000000\.muc is damaged"):
        open_store(tmp_path)


def test_a_segment_that_was_never_begun_is_used(tmp_path):
    (tmp_path / "0000000000.muc").touch()
    fill(tmp_path, 3)
    assert held(tmp_path) == [packet(48 * index) for index in range(3)]


@pytest.mark.parametrize("name", ["stream.json", "0000000000.tokens"])
def test_a_store_of_an_older_version_is_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(SettingsError, match="an older version"):
        open_store(tmp_path)


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    header = StreamHeader("nano", "nano-1", "a" * 64).encode().replace(b":1,", b":2,", 1)
    (tmp_path / "0000000000.muc").write_bytes(MAGIC + frame(header))
    with pytest.raises(SettingsError, match="update the program"):
        open_store(tmp_path)


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="choose another folder"):
        open_store(tmp_path / "file")
    (tmp_path / "0000000000.muc").mkdir()
    with pytest.raises(SettingsError, match="choose another folder"):
        open_store(tmp_path)


def test_a_full_disk_ends_the_record_and_not_the_music(tmp_path, caplog, monkeypatch):
    store = open_store(tmp_path)
    store.tokens(packet(0), 0.0)

    def fail(appender, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MucAppender, "append", fail)
    for index in range(1, 4):
        store.tokens(packet(48 * index), 0.0)
    store.title(Title("x", 192))
    store.close()
    assert caplog.text.count("no more is stored") == 1
    assert held(tmp_path) == [packet(0)]


def test_a_segment_that_cannot_be_made_is_told_once(tmp_path, caplog):
    store = open_store(tmp_path)
    (tmp_path / "0000000000.muc").mkdir()
    store.tokens(packet(0), 0.0)
    store.tokens(packet(48), 0.0)
    store.close()
    assert caplog.text.count("no more is stored") == 1


def test_the_disk_is_told_to_keep_it_every_few_seconds(tmp_path, monkeypatch):
    now, synced = [0.0], []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(now[0]))
    store = open_store(tmp_path, clock=lambda: now[0])
    synced.clear()
    for index in range(20):
        now[0] += 1.0
        store.tokens(packet(48 * index), 0.0)
    store.close()
    assert synced == [5.0, 10.0, 15.0, 20.0, 20.0]


_WRITER = """
import sys
from pathlib import Path
from typing import Any
from tests.test_store import open_store, packet

store = open_store(Path(sys.argv[1]))
for index in range(10**9):
    store.tokens(packet(store.next_token), 0.0)
    print(store.next_token, flush=True)
"""


def test_nothing_that_was_acknowledged_is_lost_when_the_writer_is_killed(tmp_path):
    ends = [0]
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout.read().split(b"\n")[:-1] if line]
        process.wait()
        assert said[0] == ends[-1] + 48  # goes on with the same numbers
        store = open_store(tmp_path)
        assert store.next_token >= said[-1]
        ends.append(store.next_token)
        store.close()
    place = 0
    for part in held(tmp_path):
        assert part == packet(place)
        place = part.end_token
    assert place == ends[-1]


def test_the_place_where_a_stored_stream_ends_is_known_without_opening_it(tmp_path):
    assert stored_place(tmp_path / "none") == ("", 0)
    assert stored_place(tmp_path) == ("", 0)
    identity = fill(tmp_path, 3)
    assert stored_place(tmp_path) == (identity.stream, 144)
    (tmp_path / "0000000144.muc").mkdir()
    with pytest.raises(SettingsError, match="Cannot read the stream"):
        stored_place(tmp_path)
    (tmp_path / "0000000144.muc").rmdir()
    header = StreamHeader("nano", "nano-1", "a" * 64).encode().replace(b":1,", b":2,", 1)
    (tmp_path / "0000000144.muc").write_bytes(MAGIC + frame(header))
    with pytest.raises(SettingsError, match="update the program"):
        stored_place(tmp_path)
