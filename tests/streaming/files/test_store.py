"""The stream on disk: killed in the middle, damaged, gone on with."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming.errors import SettingsError
from streaming.files import high_water
from streaming.files import store as store_module
from streaming.files.high_water import RESERVED_TOKENS
from streaming.files.muc import Clock, MucReader, StreamHeader
from streaming.files.muc.framing import MAGIC, frame
from streaming.files.store import TokenStore, stored_place
from streaming.send.service import open_hub
from streaming.send.settings import ServiceSettings
from streaming.stream.hub import Hub
from streaming.stream.listener_session import ListenerSession
from streaming.wire.messages import Gap, Hello, Join, StreamInfo, Title, Tokens
from tests import ROOT
from tests.support.limits import limited

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
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 7, identity.stream, 48), history_tokens=KEEP)
    store = open_store(folder)
    store.restore(hub.history)
    hub.history.go_on_at(store.next_token)
    store.close()
    assert hub.next_token == store.next_token == 540
    assert hub.title == "Song"
    outbox = hub.join(Join(next_token=0), 0.0)
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(message)
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
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 7, "s", 48), history_tokens=keep)
    store.restore(hub.history)
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


def test_a_full_disk_costs_the_packets_of_that_time_and_not_the_music(tmp_path, caplog):
    store = open_store(tmp_path)
    store.tokens(packet(0), 0.0)
    with limited(resource.RLIMIT_FSIZE, 1024):
        for index in range(1, 8):
            store.tokens(packet(48 * index), 0.0)
        store.title(Title("x", 384))
    store.tokens(packet(384), 0.0)
    store.close()
    assert caplog.text.count("storing the stream in") == 2
    assert "File too large) and is tried again" in caplog.text
    assert "works again" in caplog.text
    (segment,) = tmp_path.glob("*.muc")
    info = MucReader(segment).describe()
    assert info.damaged_bytes == 0
    kept = held(tmp_path)
    assert kept == [*(packet(48 * index) for index in range(len(kept) - 1)), packet(384)]
    assert 1 < len(kept) < 8


def test_the_first_packet_on_a_full_disk_leaves_no_file(tmp_path):
    store = open_store(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 100):
        for index in range(5):
            store.tokens(packet(48 * index), 0.0)
    assert not list(tmp_path.glob("*.muc"))
    store.tokens(packet(240), 0.0)
    store.close()
    assert held(tmp_path) == [packet(240)]


def test_what_was_sent_while_the_disk_was_full_keeps_its_numbers(tmp_path):
    store = open_store(tmp_path)
    store.tokens(packet(0), 0.0)
    with limited(resource.RLIMIT_FSIZE, 1024):
        for index in range(1, 20):
            store.tokens(packet(48 * index), 0.0)
        stored = store.next_token
        killed(store)
    store = open_store(tmp_path)
    assert (store.next_token, store.sent_token) == (stored, 960)
    store.close()


def test_a_segment_that_cannot_be_made_is_told_once_and_tried_again(tmp_path, caplog):
    store = open_store(tmp_path)
    (tmp_path / "0000000000.muc").mkdir()
    store.tokens(packet(0), 0.0)
    (tmp_path / "0000000000.muc").rmdir()
    (tmp_path / "0000000048.muc").mkdir()
    store.tokens(packet(48), 0.0)
    assert caplog.text.count("storing the stream in") == 1
    (tmp_path / "0000000048.muc").rmdir()
    store.tokens(packet(96), 0.0)
    store.close()
    assert held(tmp_path) == [packet(96)]


def test_nothing_is_lost_where_there_is_no_descriptor_for_the_next_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_SEGMENT_BYTES", 600)
    store = open_store(tmp_path)
    for index in range(20):
        with limited(resource.RLIMIT_NOFILE, 0 if 2 < index < 15 else 1024):
            store.tokens(packet(48 * index), 0.0)
    store.close()
    assert held(tmp_path) == [packet(48 * index) for index in range(20)]
    *others, largest = sorted(path.stat().st_size for path in tmp_path.glob("*.muc"))
    assert largest > 1200  # it grew meanwhile
    assert others[-1] < 800


def test_the_disk_is_told_to_keep_it_every_few_seconds(tmp_path, monkeypatch):
    now, synced = [0.0], []
    store = open_store(tmp_path, clock=lambda: now[0])
    fsync = os.fsync

    def note(number):
        fsync(number)
        synced.append((Path(f"/proc/self/fd/{number}").readlink().name, now[0]))

    monkeypatch.setattr(os, "fsync", note)
    for index in range(20):
        now[0] += 1.0
        store.tokens(packet(48 * index), 0.0)
    store.close()
    segment = [at_s for name, at_s in synced if name.endswith(".muc")]
    assert segment == [1.0, 6.0, 11.0, 16.0, 20.0]  # with the header, and on closing
    # Numbers are reserved for the next ten seconds, before the first of them is sent.
    mark = [at_s for name, at_s in synced if name == "mark"]
    assert mark == [1.0, 7.0, 13.0, 19.0, 20.0]
    assert len(synced) == len(segment) + len(mark) + 1  # and the folder


# An end that was not in good order.


def killed(store):
    """What is left of the program goes, and nothing is closed in good order."""
    store._lock.close()


class Disk:
    """What a disk holds of a folder: files as they were when it was last told to keep them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.kept: dict[Path, bytes] = {}
        self._boots = 0
        self._fsync = os.fsync
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(os, "fsync", self._keep)
        self.reboot()

    def reboot(self) -> None:
        self._boots += 1
        self._monkeypatch.setattr(high_water, "_boot_id", lambda number=self._boots: f"{number}")

    def cut_power(self, tail: str) -> None:
        """Only what it was told to keep is left; of the rest nothing, zeros or the file's name."""
        for path in self.folder.iterdir():
            now, kept = path.read_bytes(), self.kept.get(path)
            if path.name == "mark":
                assert kept is not None
                path.write_bytes(kept)
            elif kept is None and tail != "name":
                path.unlink()
            elif tail == "zeros":
                path.write_bytes((kept or b"").ljust(len(now), b"\0"))
            else:
                path.write_bytes(kept or b"")
        self.reboot()

    def _keep(self, number: int) -> None:
        self._fsync(number)
        path = Path(f"/proc/self/fd/{number}").readlink()
        if path.is_file():
            self.kept[path] = path.read_bytes()


@pytest.mark.parametrize("tail", ["cut", "zeros", "name"])
@pytest.mark.parametrize("packets", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 40])
def test_after_a_power_cut_no_number_is_used_twice(tmp_path, monkeypatch, tail, packets):
    monkeypatch.setattr(store_module, "_SEGMENT_BYTES", 600)
    disk, now = Disk(tmp_path, monkeypatch), [0.0]
    sent, name = 0, ""
    for _ in range(3):
        store = open_store(tmp_path, clock=lambda: now[0])
        assert store.identity.stream == (name or store.identity.stream)
        name = store.identity.stream
        assert sent <= store.sent_token <= sent + RESERVED_TOKENS
        first = store.sent_token
        for index in range(packets):
            now[0] += 1.92
            store.tokens(packet(first + 48 * index), now[0])
        sent = store.sent_token
        killed(store)
        disk.cut_power(tail)
        assert store.next_token - stored_place(tmp_path)[1] <= 48 * 4  # about five seconds


@pytest.mark.parametrize("damage", ["first half", "second half", "all", "cut", "gone"])
def test_a_mark_that_is_damaged_costs_numbers_and_uses_none_twice(tmp_path, monkeypatch, damage):
    disk = Disk(tmp_path, monkeypatch)
    store = open_store(tmp_path)
    for index in range(20):
        store.tokens(packet(48 * index), 0.0)
    killed(store)
    disk.reboot()
    mark = tmp_path / "mark"
    data = bytearray(mark.read_bytes())
    assert len(data) == 1024
    for at in {"first half": (30,), "second half": (540,), "all": (30, 540)}.get(damage, ()):
        data[at] ^= 1
    mark.write_bytes(data[:600] if damage == "cut" else data)
    if damage == "gone":
        mark.unlink()
    store = open_store(tmp_path)
    assert 960 <= store.sent_token <= 960 + RESERVED_TOKENS
    store.close()


def revived(folder):
    """The hub of a sender that is started, and its store."""
    identity = StreamHeader("nano", "nano-1", "a" * 64)
    hub, store = open_hub(ServiceSettings(store=folder), identity, 48)
    assert store is not None
    return hub, store


def test_an_end_that_is_lost_leaves_as_long_a_gap_for_everybody(tmp_path, caplog):
    hub, store = revived(tmp_path)
    for index in range(5):
        store.tokens(packet(48 * index), 1.92 * (index + 1))
        hub.publish(packet(48 * index).tokens, 0.0)
    session = ListenerSession(None, join=Join(1000))
    outbox = hub.join(Join(1000), 0.0)
    while (message := outbox.take()) is not None:
        session.receive(message, 0.0)
    assert session.next_token == 240
    killed(store)
    (segment,) = tmp_path.glob("*.muc")
    os.truncate(segment, segment.stat().st_size - 200)
    hub, store = revived(tmp_path)
    assert (hub.next_token, store.next_token) == (240, 240)
    assert "after a gap of 5.8 s" in caplog.text
    store.tokens(packet(240), 0.0)
    hub.publish(packet(240).tokens, 0.0)
    coming_back = session.rejoin()
    assert isinstance(coming_back, Join)
    outbox = hub.join(coming_back, 0.0)  # who has heard all of it misses nothing
    happened = []
    while (message := outbox.take()) is not None:
        happened += session.receive(message, 0.0)
    assert happened == [packet(240)]
    outbox = hub.join(Join(next_token=0), 0.0)  # and to the others the gap is named
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(message)
    assert Gap(96, 144) in messages
    store.close()
    assert held(tmp_path) == [packet(0), packet(48), packet(240)]


def test_an_end_in_good_order_leaves_no_gap_even_when_the_machine_is_started_anew(
    tmp_path, monkeypatch
):
    disk = Disk(tmp_path, monkeypatch)
    fill(tmp_path, 10)
    disk.reboot()
    store = open_store(tmp_path)
    assert store.sent_token == store.next_token == 480
    store.close()


def test_a_store_of_before_there_were_marks_goes_on_after_a_gap(tmp_path):
    fill(tmp_path, 10)
    (tmp_path / "mark").unlink()
    hub, store = revived(tmp_path)
    assert hub.next_token == 480 + RESERVED_TOKENS
    store.close()


def test_a_relay_asks_again_for_what_its_store_has_lost(tmp_path):
    store = open_store(tmp_path, stream="elsewhere")
    for index in range(5):
        store.tokens(packet(48 * index), 1.92 * (index + 1))
    killed(store)
    (segment,) = tmp_path.glob("*.muc")
    os.truncate(segment, segment.stat().st_size - 200)
    assert stored_place(tmp_path) == ("elsewhere", 96)
    store = open_store(tmp_path, stream="elsewhere")
    assert store.sent_token == store.next_token == 96
    store.close()


def test_numbers_that_could_be_neither_stored_nor_noted_are_noted_at_the_end(tmp_path):
    store = open_store(tmp_path)
    store.tokens(packet(0), 0.0)
    with limited(resource.RLIMIT_FSIZE, 0):
        store.tokens(packet(48), 0.0)
    store.close()
    store = open_store(tmp_path)
    assert (store.next_token, store.sent_token) == (48, 96)
    store.close()


def test_a_mark_that_cannot_be_written_is_told_once_and_the_music_goes_on(tmp_path, caplog):
    store = open_store(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 0):
        for index in range(3):
            store.tokens(packet(48 * index), 0.0)
    store.tokens(packet(144), 0.0)
    store.close()
    assert caplog.text.count("noting which token numbers are used in") == 2
    assert open_store(tmp_path).sent_token == 192


_WRITER = """
import sys
from pathlib import Path
from typing import Any
from tests.streaming.files.test_store import open_store, packet

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
