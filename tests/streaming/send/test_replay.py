"""Files of tokens as a stream: numbered as one, each packet when it is due."""

from __future__ import annotations

import random

import numpy as np
import pytest

from streaming.errors import SettingsError, SourceError
from streaming.files.muc import Finish, MucEncoder, MucMuxer, StreamHeader
from streaming.files.muc.messages import Record
from streaming.files.store import TokenStore
from streaming.send.publisher import Publisher
from streaming.send.replay import MucPlaylist, Replay
from streaming.stream.hub import Hub
from streaming.wire.messages import End, Gap, Hello, Join, StreamInfo, Title, Tokens

HEADER = StreamHeader("nano", "nano-1", "a" * 64, seed=7)


def muc(path, tokens, *, first=0, header=HEADER, titles=("Song",)):
    """A file of tokens whose values are their positions plus ``first``."""
    encoder = MucEncoder(header)
    data = b"".join(encoder.title(title) for title in titles)
    data += encoder.tokens((np.arange(tokens) + first) % 16_384)
    path.write_bytes(data + encoder.finish(tokens * 1920))
    return path


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0

    def clock(self):
        return self.now_s

    async def sleep(self, seconds):
        self.now_s += seconds


def hub_of(packet_tokens=48):
    return Hub(
        StreamInfo("nano", "nano-1", "a" * 64, 7, "s", packet_tokens), history_tokens=100_000
    )


async def replayed(playlist, hub=None, store=None):
    """What a listener is sent who was there from the first moment, with times."""
    hub, time = hub or hub_of(), Time()
    sent: list[tuple[float, object]] = []
    outbox = None

    def wake():
        while outbox is not None and (message := outbox.take()) is not None:
            sent.append((time.now_s, message))

    outbox = hub.join(Join(history=0), 0.0, wake)
    wake()
    publisher = Publisher(hub, store, clock=time.clock, wall=time.clock)
    replay = Replay(playlist, publisher, time.clock, time.sleep)
    try:
        await replay.run()
    finally:
        await publisher.close()
        assert replay.source_samples == hub.next_token * 1920
    wake()
    return sent


def tokens_of(sent):
    return np.concatenate([m.tokens for _, m in sent if isinstance(m, Tokens)])


async def test_packets_leave_when_they_are_due(tmp_path):
    sent = await replayed(MucPlaylist([muc(tmp_path / "a.muc", 100)]))
    assert isinstance(sent[0][1], Hello)
    assert [m for _, m in sent if isinstance(m, Title)] == [Title("Song", 0)]
    packets = [(at_s, len(m.tokens)) for at_s, m in sent if isinstance(m, Tokens)]
    # The first at once, the last when what it holds is due.
    assert packets == [(0.0, 48), (pytest.approx(1.92), 48), (pytest.approx(2.08), 4)]
    assert sent[-1][1] == End(100, "the source has ended")
    assert np.array_equal(tokens_of(sent), np.arange(100))


async def test_files_follow_each_other_as_one_stream(tmp_path):
    recorded = StreamHeader("nano", "nano-1", "a" * 64, first_token=5000, stream="elsewhere")
    one = muc(tmp_path / "one.muc", 60, titles=())
    two = muc(tmp_path / "two.muc", 60, first=60, header=recorded, titles=["Two"])
    sent = await replayed(MucPlaylist([one, two]))
    assert np.array_equal(tokens_of(sent), np.arange(120))
    assert [m for _, m in sent if isinstance(m, Title)] == [Title("one", 0), Title("Two", 60)]
    place = 0
    for _, message in sent:
        if isinstance(message, Tokens):
            assert message.first_token == place
            place = message.end_token


async def test_a_title_of_ones_own_stands_for_all_others(tmp_path):
    files = [muc(tmp_path / "one.muc", 60), muc(tmp_path / "two.muc", 60)]
    sent = await replayed(MucPlaylist(files, title="Radio"))
    assert [m for _, m in sent if isinstance(m, Title)] == [Title("Radio", 0)]


async def test_what_is_missing_in_a_file_takes_its_time(tmp_path):
    muxer = MucMuxer(HEADER)
    records: list[Record] = [Tokens(0, np.arange(48)), Tokens(98, np.arange(98, 146)), Finish(150)]
    (tmp_path / "a.muc").write_bytes(b"".join(muxer.push(record) for record in records))
    sent = await replayed(MucPlaylist([tmp_path / "a.muc"]))
    assert [(at_s, m) for at_s, m in sent if isinstance(m, Gap)] == [
        (pytest.approx(2.0), Gap(48, 50)),
        (pytest.approx((150 - 48) / 25), Gap(146, 4)),
    ]
    assert sent[-1][1].token == 150


def test_a_loop_goes_round_and_shuffles_every_round(tmp_path):
    files = [muc(tmp_path / f"{n}.muc", 10, titles=[str(n)]) for n in range(6)]
    items = MucPlaylist(files, loop=True, shuffle=True, chance=random.Random(1)).items()
    rounds, place = [], 0
    for _ in range(3):
        titles: list[str] = []
        while len(titles) < 6:
            item = next(items)
            if isinstance(item, Title):
                titles.append(item.title)
                assert item.token == place
            else:
                assert item.first_token == place
                place += 10
        assert next(items) == Tokens(place, np.arange(10))
        place += 10
        rounds.append(titles)
    assert all(sorted(titles) == list("012345") for titles in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_a_loop_of_nothing_ends(tmp_path):
    playlist = MucPlaylist([muc(tmp_path / "a.muc", 0)], loop=True)
    with pytest.raises(SourceError, match="no music"):
        list(playlist.items())


def test_what_cannot_be_read_is_left_out(tmp_path, caplog):
    (tmp_path / "bad.muc").write_bytes(b"nothing")
    good = muc(tmp_path / "good.muc", 10)
    assert MucPlaylist([tmp_path / "bad.muc", good]).header == HEADER
    assert "bad.muc" in caplog.text
    with pytest.raises(SourceError, match=r"bad\.muc"):
        MucPlaylist([tmp_path / "bad.muc"])
    with pytest.raises(SourceError, match="none of 2"):
        MucPlaylist([tmp_path / "bad.muc", tmp_path / "none.muc"])


def test_files_of_other_weights_are_not_mixed(tmp_path):
    other = StreamHeader("nano", "nano-2", "b" * 64)
    files = [muc(tmp_path / "a.muc", 1), muc(tmp_path / "b.muc", 1, header=other)]
    with pytest.raises(SettingsError, match=r"b\.muc' is of nano \(bbbbbbbbbbbb…\)"):
        MucPlaylist(files)


async def test_a_file_that_goes_away_is_told_and_the_next_one_plays(tmp_path, caplog):
    files = [muc(tmp_path / "a.muc", 10), muc(tmp_path / "b.muc", 10)]
    playlist = MucPlaylist(files)
    files[0].unlink()
    assert len(tokens_of(await replayed(playlist))) == 10
    assert "a.muc" in caplog.text


async def test_a_source_that_fails_for_good_is_told_to_listeners(tmp_path):
    playlist = MucPlaylist([muc(tmp_path / "a.muc", 0)], loop=True)
    hub = hub_of()
    with pytest.raises(SourceError):
        await replayed(playlist, hub)
    assert hub.ended


async def test_what_is_served_can_be_stored_and_gone_on_with(tmp_path):
    playlist = MucPlaylist([muc(tmp_path / "a.muc", 100)])
    for round_ in range(2):
        store = TokenStore(tmp_path / "store", HEADER, keep_tokens=10_000)
        hub = hub_of()
        hub.history.go_on_at(store.next_token)
        assert store.next_token == 100 * round_
        await replayed(playlist, hub, store)
    store = TokenStore(tmp_path / "store", HEADER, keep_tokens=10_000)
    records = list(store.records())
    store.close()
    stored = np.concatenate([r.tokens for r in records if isinstance(r, Tokens)])
    assert np.array_equal(stored, np.tile(np.arange(100), 2))
    assert Title("Song", 0) in records
