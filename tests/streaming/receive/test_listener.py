"""The listening pipeline: from scripted messages to what the sinks got."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.lab.lossy import LossyLink
from codec.errors import UnknownCodecError
from streaming.errors import ProtocolError, SinkClosed, SinkError, TransportError
from streaming.receive import decoding
from streaming.receive.decoding import DecodeOptions
from streaming.receive.listener import Listener
from streaming.receive.output import Output
from streaming.receive.settings import CatchUp, ListenerSettings
from streaming.stream.timeline import StartAt
from streaming.wire.messages import MAX_GAP_TOKENS, End, Failure, Gap, Join, Title, Tokens
from tests.support.fake_codec import FakeCodec
from tests.support.listening import (
    BROKEN,
    QUICK,
    FakeCard,
    MemorySink,
    Script,
    hello,
    play,
    scripted,
    stop,
    token_messages,
    tokens,
    whole_sound,
)


async def listen(
    script: Script,
    *sinks: MemorySink,
    card: FakeCard | None = None,
    load=None,
    then: Sequence[Script] = (),
    **settings: Any,
) -> Listener:
    """Listen to the end. then: further connections."""
    listener = scripted(Output(sinks, card), script, *then, load=load, **settings)
    await play(listener)
    return listener


@pytest.mark.parametrize("size", [1, 7, 48, 1000])
async def test_a_whole_stream_arrives_sample_for_sample_however_it_is_packed(size: int) -> None:
    all_tokens, file = tokens(150), MemorySink()
    messages = token_messages(all_tokens, size=size)
    script = Script(hello(packet_tokens=size), *messages, End(150, "done").encode())
    listener = await listen(script, file)
    assert np.array_equal(file.sound, whole_sound(all_tokens))
    assert listener.samples == 150 * 1920
    assert listener.end_reason == "done"
    assert listener.position_s == 6.0
    assert listener.buffered_s == 0
    assert file.closed == 1


async def test_sound_starts_near_the_live_edge_of_the_history() -> None:
    all_tokens, file = tokens(700), MemorySink()
    script = Script(
        hello(444, 700, age_s=0.42),
        *token_messages(all_tokens, 444, size=1000),
        End(700).encode(),
    )
    listener = await listen(script, file, margin_s=0.5)
    # Edge (700 - 4) // 8 * 8 = 696; packets of 48 move it every time by whole hops of 8.
    start = 696 - (48 - 0.42 * 25 + 0.5 * 25)
    began = 700 - file.samples // 1920
    assert start - 1 <= began <= start + 1  # the clock goes on while the test runs
    assert listener.samples == file.samples
    assert listener.samples % 1920 == 0
    # Context before the start is missing, so only what lies further on is the same.
    same = 1920 * 32
    assert np.allclose(file.sound[:, -same:], whole_sound(all_tokens)[:, -same:], atol=1e-3)


async def test_history_may_come_in_several_messages_and_live_packets_follow() -> None:
    all_tokens, file = tokens(800), MemorySink()
    messages = token_messages(all_tokens, 400, size=100)
    script = Script(hello(400, 700), *messages, End(800).encode())
    listener = await listen(script, file)
    began = listener.position_s * 25 - listener.samples / 1920
    assert 600 < began < 700
    assert listener.position_s == 32.0


async def test_history_that_breaks_off_is_still_played() -> None:
    file = MemorySink()
    script = Script(hello(400, 700), *token_messages(tokens(500), 400), then=BROKEN)
    with pytest.raises(TransportError):
        await listen(script, file)
    assert file.samples > 0
    assert file.closed == 1


async def test_a_broken_connection_is_reported_after_everything_was_played() -> None:
    all_tokens, file = tokens(100), MemorySink()
    script = Script(hello(), *token_messages(all_tokens), then=BROKEN)
    with pytest.raises(TransportError, match="broke"):
        await listen(script, file)
    assert np.array_equal(file.sound, whole_sound(all_tokens))
    assert file.closed == 1


async def test_a_sender_that_hangs_up_without_an_end_is_reported() -> None:
    file = MemorySink()
    with pytest.raises(TransportError, match="hung up in the middle"):
        await listen(Script(hello(), *token_messages(tokens(100))), file)
    assert file.samples == 100 * 1920


async def test_garbage_in_the_middle_ends_it_after_what_was_good() -> None:
    file = MemorySink()
    with pytest.raises(ProtocolError):
        await listen(Script(hello(), *token_messages(tokens(96)), b"\xff garbage"), file)
    assert file.samples == 96 * 1920
    assert file.closed == 1


@pytest.mark.parametrize(
    ("first", "error", "words"),
    [
        (b"\x00\x01\x02", ProtocolError, "kind 0"),
        ("{", ProtocolError, "JSON"),
        (hello(codec="other"), ProtocolError, "codec"),
        (hello(digest="f" * 64), ProtocolError, "weights"),
        (hello(sample_rate=44100), ProtocolError, "44100"),
        (Failure("lag", "too slow").encode(), ProtocolError, "too slow"),
        (token_messages(tokens(10))[0], ProtocolError, "hello"),
    ],
)
async def test_a_stream_that_cannot_be_decoded_is_refused_in_one_sentence(
    first: str | bytes, error: type[Exception], words: str
) -> None:
    file = MemorySink()
    with pytest.raises(error, match=words):
        await listen(Script(first, then="wait"), file)
    assert file.closed == 1


async def test_a_sender_that_says_nothing_is_given_up() -> None:
    with pytest.raises(TransportError, match="said nothing"):
        await listen(Script(then="wait"), MemorySink(), hello_timeout_s=0.01)


async def test_a_sender_that_hangs_up_at_once_is_reported() -> None:
    with pytest.raises(TransportError, match="without a word"):
        await listen(Script(), MemorySink())


async def test_events_of_unknown_types_are_passed_over() -> None:
    unknown, file = '{"type":"weather"}', MemorySink()
    script = Script(
        unknown, hello(), unknown, *token_messages(tokens(48)), unknown, End(48).encode()
    )
    await listen(script, file)
    assert file.samples == 48 * 1920


class OtherCodec(FakeCodec):
    name = "other"
    digest = "e" * 64


async def test_another_codec_is_loaded_when_the_stream_names_it() -> None:
    def load(name: str) -> FakeCodec:
        assert name == "other"
        assert threading.current_thread() is not threading.main_thread()
        return OtherCodec()

    file = MemorySink()
    script = Script(
        hello(codec="other", digest="e" * 64), *token_messages(tokens(48)), End(48).encode()
    )
    await listen(script, file, load=load)
    assert file.samples == 48 * 1920


async def test_a_codec_that_is_not_known_is_refused_by_its_name() -> None:
    def load(name: str) -> FakeCodec:
        raise UnknownCodecError(f"there is no codec {name!r} here")

    with pytest.raises(UnknownCodecError, match="'other'"):
        await listen(Script(hello(codec="other")), MemorySink(), load=load)


async def test_loaded_weights_must_match_as_well() -> None:
    with pytest.raises(ProtocolError, match="weights"):
        await listen(Script(hello(codec="other")), MemorySink(), load=lambda _: OtherCodec())


@pytest.mark.parametrize("limit", [0, 1, 1919, 100_000])
async def test_a_limit_gives_exactly_as_many_samples(limit: int) -> None:
    all_tokens, file = tokens(200), MemorySink()
    script = Script(hello(), *token_messages(all_tokens), then="wait")
    await listen(script, file, limit_samples=limit)
    assert np.array_equal(file.sound, whole_sound(all_tokens)[:, :limit])
    assert file.closed == 1


@pytest.mark.parametrize("count", [1, 30, 200])
async def test_lost_tokens_are_replaced_so_that_the_timeline_stays_exact(count: int) -> None:
    all_tokens, file = tokens(400), MemorySink()
    script = Script(
        hello(),
        *token_messages(all_tokens[:100]),
        Gap(100, count).encode(),
        *token_messages(all_tokens, 100 + count),
        End(400).encode(),
    )
    listener = await listen(script, file)
    assert listener.session.lost_tokens == count
    assert file.samples == 400 * 1920
    same = 1920 * (100 - 12)
    assert np.array_equal(file.sound[:, :same], whole_sound(all_tokens)[:, :same])
    assert listener.session.gaps == 1
    # For a second the filling is no silence; then it fades to one, and back after the gap.
    gap = file.sound[:, 100 * 1920 : (100 + count) * 1920]
    assert np.sqrt(np.mean(gap[:, :48_000] ** 2)) > 0.05
    assert not gap[:, 72_000:].any()
    after = file.sound[:, (100 + count) * 1920 :]
    assert np.sqrt(np.mean(after**2)) > 0.05
    assert steps(file.sound) <= 1.2 * steps(whole_sound(all_tokens))


@pytest.mark.parametrize("count", [MAX_GAP_TOKENS + 1, 3600 * 25, 2**31], ids=str)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not announced"])
async def test_a_gap_of_more_than_ten_minutes_is_closed(count: int, announced: bool) -> None:
    before, after, file = tokens(300)[:100], tokens(300)[100:], MemorySink()
    there = 100 + count
    script = Script(
        hello(),
        *token_messages(before),
        *([Gap(100, count).encode()] if announced else []),
        *(Tokens(there + at, after[at : at + 48]).encode() for at in range(0, 200, 48)),
        End(there + 200).encode(),
    )
    listener = await listen(script, file)
    assert (listener.session.lost_tokens, listener.session.gaps) == (count, 1)
    assert listener.buffered_s == 0
    assert file.samples == 300 * 1920  # every token that came, and nothing for those that did not
    assert listener.position_s == (there + 200) / 25
    heard, whole = file.sound[:, : 100 * 1920], whole_sound(before)
    assert np.array_equal(heard[:, :-960], whole[:, :-960])  # up to the fade
    assert abs(heard[:, -1]).max() < 0.01
    assert steps(file.sound) <= 1.2 * steps(whole_sound(tokens(300)))
    assert np.sqrt(np.mean(file.sound[:, 101 * 1920 :] ** 2)) > 0.05


async def test_gaps_that_follow_one_another_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_GAP_TOKENS", 500)
    file = MemorySink()
    gaps = [Gap(100 + n * 400, 400).encode() for n in range(1000)]
    there = 100 + 1000 * 400
    script = Script(
        hello(),
        *token_messages(tokens(100)),
        *gaps,
        Tokens(there, tokens(48)).encode(),
        End(there + 48).encode(),
    )
    await listen(script, file)
    # The first of them, and the music on both sides.
    assert file.samples == (100 + 400 + 48) * 1920


async def test_a_gap_in_the_past_costs_nothing_of_what_is_behind_it() -> None:
    all_tokens, file = tokens(1400), MemorySink()
    there = 600 + 90_000
    script = Script(
        hello(0, there + 10_000),
        *token_messages(all_tokens[:600], size=600),
        Tokens(there, all_tokens[600:1400]).encode(),
        End(there + 800).encode(),
    )
    await listen(script, file, start=StartAt(token=400))
    assert file.samples == 1000 * 1920


async def test_who_sends_without_end_is_not_read_when_enough_waits() -> None:
    """Whatever edge a sender claims: sound begins, and no more is read than will be decoded."""
    sink = MemorySink()
    sink.gate.clear()
    script = Script(hello(0, 2**32 - 1), then="wait")
    script.add(*(Tokens(at, tokens(1024)).encode() for at in range(0, 1024 * 6000, 1024)))
    running = asyncio.create_task(play(scripted(Output([sink]), script)))
    tracemalloc.start()
    try:
        taken = 0
        while script.taken < 4000 or script.taken > taken:
            taken = script.taken
            await asyncio.sleep(0.1)
        assert script.taken < 4200
        assert tracemalloc.get_traced_memory()[0] < 45_000_000
    finally:
        tracemalloc.stop()
        sink.gate.set()
    await stop(running)
    assert sink.samples > 0


async def test_a_live_listener_keeps_no_more_of_the_past_than_it_can_begin_with() -> None:
    all_tokens, file = tokens(3000), MemorySink()
    script = Script(hello(0, 3000), *token_messages(all_tokens, size=1000), End(3000).encode())
    await listen(script, file)
    whole = whole_sound(all_tokens)[:, -file.samples :]
    assert 50 * 1920 < file.samples < 100 * 1920
    assert np.allclose(file.sound[:, 20_000:], whole[:, 20_000:], atol=1e-3)


async def test_a_link_that_loses_in_bursts_leaves_music_that_continues() -> None:
    all_tokens, file = tokens(3000), MemorySink()
    packets = [Tokens(at, all_tokens[at : at + 8]) for at in range(0, 3000, 8)]
    link = LossyLink(jitter_s=0.05, loss=0.05, burst_packets=2.0, seed=3)
    arrived = [packet for _, packet in link.deliver(enumerate(packets))]
    lost = 3000 - sum(len(packet.tokens) for packet in arrived)
    assert 0.02 < lost / 3000 < 0.1
    script = Script(hello(), *(packet.encode() for packet in arrived), End(3000).encode())
    listener = await listen(script, file)
    assert listener.session.lost_tokens == lost
    assert listener.session.gaps > 3
    assert file.samples == 3000 * 1920
    # Half a second by half a second: as loud as without losses, nowhere silent, nowhere loud.
    heard, whole = (
        np.sqrt(np.mean(sound.reshape(2, -1, 24_000) ** 2, axis=(0, 2)))
        for sound in (file.sound, whole_sound(all_tokens))
    )
    assert np.median(heard) == pytest.approx(np.median(whole), rel=0.05)
    assert heard.min() > 0.5 * whole.min()
    assert heard.max() < 1.5 * whole.max()


async def test_a_stream_that_ends_before_its_first_token_gives_no_sound() -> None:
    file = MemorySink()
    listener = await listen(Script(hello(), End(0).encode()), file)
    assert file.samples == 0
    assert listener.latency_s is None
    assert file.closed == 1


async def test_titles_change_when_their_token_is_heard_not_when_they_arrive() -> None:
    card = FakeCard()
    script = Script(
        hello(),
        Title("Second", 60).encode(),
        *token_messages(tokens(100)),
        End(100).encode(),
        then="wait",
    )
    card.drain_gate.clear()
    listener = scripted(Output([], card), script)
    assert listener.title == ""
    assert listener.buffered_s == 0
    running = asyncio.create_task(play(listener))
    while card.drained == 0:
        await asyncio.sleep(0.005)
    card.buffered_samples = 50 * 1920
    assert listener.title == "Song"
    assert listener.heard_sample == 50 * 1920
    assert listener.buffered_s == pytest.approx(2.0)
    card.buffered_samples = 0
    assert listener.title == "Second"
    card.drain_gate.set()
    await running


async def test_latency_is_the_way_from_the_source_to_the_ear() -> None:
    now = [1000.0]
    card = FakeCard()
    clock = lambda: now[0]  # noqa: E731
    all_tokens = tokens(600)
    script = Script(hello(400, 600, age_s=1.0, delay_s=0.5), then="wait")
    script.add(*token_messages(all_tokens, 400, size=200))
    listener = scripted(Output([], card, clock=clock), script, clock=clock)
    running = asyncio.create_task(play(listener))
    while card.samples < (592 - 560) * 1920:
        await asyncio.sleep(0.001)
    card.buffered_samples = 4800
    # The source stands at 600 / 25 + 0.5 + 1.0 s.
    assert listener.latency_s == pytest.approx(25.5 - (listener.position_s - 0.1))
    now[0] += 2.0
    assert listener.latency_s == pytest.approx(27.5 - (listener.position_s - 0.1))
    await stop(running)


async def test_stop_ends_at_once_with_the_files_closed() -> None:
    file = MemorySink()
    listener = scripted(Output([file]), Script(hello(), then="wait"))
    running = asyncio.create_task(play(listener))
    await asyncio.sleep(0.02)
    assert not running.done()
    await stop(running)
    assert file.closed == 1
    assert listener.end_reason is None


async def test_who_leaves_after_a_break_is_told_of_no_error() -> None:
    file = MemorySink()
    file.gate.clear()
    script = Script(hello(), *token_messages(tokens(48)), then=BROKEN)
    async with scripted(Output([file]), script) as listener:
        playing = asyncio.create_task(listener.play())
        while not file.threads:
            await asyncio.sleep(0.001)
        await stop(playing)
        file.gate.set()
    assert file.closed == 1


async def test_a_reader_that_goes_ends_it_quietly() -> None:
    pipe = MemorySink(fail_at=20_000, error=SinkClosed("gone"))
    listener = await listen(Script(hello(), *token_messages(tokens(200)), then="wait"), pipe)
    assert 20_000 <= pipe.samples < 30_000
    assert listener.end_reason is None


async def test_a_full_disk_ends_it_with_an_error() -> None:
    bad = MemorySink(fail_at=20_000, error=SinkError("disk full"))
    with pytest.raises(SinkError, match="disk full"):
        await listen(Script(hello(), *token_messages(tokens(200)), then="wait"), bad)
    assert bad.closed == 1


async def test_a_fault_of_the_decoder_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FakeCodec, "render", fail)
    file = MemorySink()
    with pytest.raises(RuntimeError, match="out of memory"):
        await listen(Script(hello(), *token_messages(tokens(48)), then="wait"), file)
    assert file.closed == 1


async def test_everything_is_bounded_while_a_sink_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "_QUEUED_MESSAGES", 10)
    all_tokens, file = tokens(1500), MemorySink()
    file.gate.clear()
    script = Script(hello(), *token_messages(all_tokens, size=10), End(1500).encode())
    listener = scripted(Output([file]), script)
    running = asyncio.create_task(play(listener))
    taken = -1
    while taken < script.taken or taken < 20:
        taken = script.taken
        await asyncio.sleep(0.1)
    # Four seconds of sound wait, ten messages, and what is just being handled.
    assert taken < 1 + (4 + 0.64) * 2.5 + 10 + 5
    assert listener.samples <= 4800
    file.gate.set()
    await running
    assert np.array_equal(file.sound, whole_sound(all_tokens))


async def test_seed_and_hop_can_be_chosen() -> None:
    all_tokens = tokens(100)
    ours, shorter, theirs = MemorySink(), MemorySink(), MemorySink()
    messages: list[str | bytes] = [hello(), *token_messages(all_tokens), End(100).encode()]
    await listen(Script(*messages), ours, decode=DecodeOptions(seed=9))
    assert np.array_equal(ours.sound, whole_sound(all_tokens, seed=9))
    await listen(Script(*messages), shorter, decode=DecodeOptions(hop=4))
    await listen(Script(*messages), theirs)
    assert not np.array_equal(ours.sound, theirs.sound)
    assert shorter.samples == theirs.samples


async def test_the_decoder_reports_its_speed() -> None:
    script = Script(hello(), *token_messages(tokens(100)), End(100).encode())
    listener = await listen(script, MemorySink())
    assert listener.decoder is not None
    assert listener.decoder.rtf.value is not None
    assert 0 < listener.decoder.rtf.value < 100


async def test_joining_asks_for_history_and_tells_a_name() -> None:
    script = Script(hello(), End(0).encode())
    await listen(script, MemorySink(), client="test", history_tokens=99)
    (sent,) = script.sent
    assert sent == Join(99, "test", kinds=(2,))


async def test_with_too_little_history_the_sound_card_waits_for_the_first_packet() -> None:
    class Noting(Output):
        due_s: float | None = None

        async def write(self, block: np.ndarray, due_s: float = 0.0) -> None:
            self.due_s = due_s
            await super().write(block, due_s)

    card, file = FakeCard(), MemorySink()
    output = Noting([file], card, clock=lambda: 0.0)
    script = Script(hello(), *token_messages(tokens(48)), then="wait")
    running = asyncio.create_task(play(scripted(output, script, clock=lambda: 0.0)))
    while not file.samples:
        await asyncio.sleep(0.001)
    # Edge 40, needed 48 + 12.5: 21 tokens too few.
    assert output.due_s == pytest.approx(21 / 25)
    assert card.samples == 0
    await stop(running)


def part(all_tokens: np.ndarray, first: int, end: int, *more: str | bytes, then="close") -> Script:
    """A connection on which tokens ``first`` to ``end`` come, then ``more``."""
    begin = hello(first, end, stream="s", first_at_s=1000.0 + first / 25)
    return Script(begin, *token_messages(all_tokens[:end], first), *more, then=then)


async def test_a_broken_connection_does_not_touch_the_sound() -> None:
    all_tokens, file = tokens(300), MemorySink()
    first = Script(hello(stream="s"), *token_messages(all_tokens[:96]), then=BROKEN)
    then = [part(all_tokens, 96, 200, then=BROKEN), part(all_tokens, 200, 300, End(300).encode())]
    listener = await listen(first, file, then=then)
    assert np.array_equal(file.sound, whole_sound(all_tokens))
    assert listener.reconnects == 2
    assert listener.session.lost_tokens == 0
    assert listener.position_s == 12.0


def steps(sound: np.ndarray) -> float:
    """The largest jump from one sample to the next."""
    return float(np.abs(np.diff(sound)).max())


async def test_another_stream_in_its_place_fades_in_after_all_of_the_first() -> None:
    before, after, file = tokens(96, seed=1), tokens(96, seed=2), MemorySink()
    first = Script(hello(stream="s"), *token_messages(before), then=BROKEN)
    second = Script(hello(stream="t", title="Other"), *token_messages(after), End(96).encode())
    listener = await listen(first, file, then=[second])
    assert file.samples == 2 * 96 * 1920
    assert listener.position_s == 96 / 25
    assert listener.title == "Other"
    middle = 96 * 1920
    # Neither stream is silent there.
    assert np.abs(whole_sound(before)[:, -960:]).max() > 0.01
    assert np.abs(file.sound[:, middle - 2 : middle + 2]).max() < 1e-3
    expected = np.concatenate([whole_sound(before), whole_sound(after)], axis=1)
    edge = 960
    assert np.array_equal(file.sound[:, : middle - edge], expected[:, : middle - edge])
    assert np.array_equal(file.sound[:, middle + edge :], expected[:, middle + edge :])
    assert steps(file.sound[:, middle - edge : middle + edge]) <= steps(expected)


async def test_a_listener_begins_in_the_past_with_context_before_it() -> None:
    all_tokens, file = tokens(1500), MemorySink()
    script = part(all_tokens, 400, 1500, End(1500).encode())
    listener = await listen(script, file, start=StartAt(token=656), catch_up=CatchUp.NONE)
    assert script.sent[0] == Join(256, next_token=400, kinds=(2,))
    assert file.samples == (1500 - 656) * 1920
    assert np.allclose(
        file.sound[:, -1920 * 700 :], whole_sound(all_tokens)[:, -1920 * 700 :], atol=1e-3
    )
    assert listener.clock_s == pytest.approx(1060.0)


async def test_a_place_that_is_yet_to_come_is_live() -> None:
    all_tokens, file = tokens(700), MemorySink()
    script = part(all_tokens, 444, 700, End(700).encode())
    await listen(script, file, start=StartAt(token=10_000))
    assert 0 < file.samples < 100 * 1920


async def test_back_to_live_leaves_what_waits_and_fades() -> None:
    all_tokens, file, card = tokens(9000), MemorySink(), FakeCard()
    behind = part(all_tokens, 0, 9000, then="wait")
    live = part(all_tokens, 8744, 9000, End(9000).encode())
    listener = scripted(Output([file], card), behind, live, start=StartAt(token=0))
    file.gate.clear()  # as a sound card does, it takes no more than it can play
    listener.go_to(StartAt())  # nothing is connected yet: does nothing
    running = asyncio.create_task(play(listener))
    while behind.taken < 2 or not file.threads:
        await asyncio.sleep(0.002)
    listener.go_to(StartAt())
    while listener.reconnects == 0 or live.taken < 2:
        await asyncio.sleep(0.002)
    file.gate.set()
    await running
    assert live.sent[0] == Join(256, kinds=(2,))
    assert card.dropped == 1
    assert file.samples < 150 * 1920
    assert listener.position_s == 360.0
    tail = 40 * 1920
    assert np.allclose(file.sound[:, -tail:], whole_sound(all_tokens)[:, -tail:], atol=1e-3)


@pytest.mark.parametrize("dry", [True, False])
async def test_with_jump_an_outage_that_was_heard_is_left_out(dry: bool) -> None:
    all_tokens, card = tokens(600), FakeCard()
    card.buffered_samples = 0 if dry else 48_000
    first = Script(hello(stream="s"), *token_messages(all_tokens[:96]), then=BROKEN)

    waiting = [first]

    async def dial() -> Script:
        if waiting:
            return waiting.pop()
        while card.samples < 80 * 1920:
            await asyncio.sleep(0.001)
        if not dry:
            return part(all_tokens, 96, 600, End(600).encode())
        # What was received is heard: the decoder holds back its lookahead.
        listener.session.next_token = listener.heard_sample // 1920
        return part(all_tokens, 344, 600, End(600).encode())

    settings = ListenerSettings(catch_up=CatchUp.JUMP, backoff=QUICK)
    listener = Listener(dial, FakeCodec(), Output([], card), settings=settings)
    await play(listener)
    assert listener.session.lost_tokens == 0
    if dry:
        assert card.samples < 250 * 1920
    else:
        assert np.array_equal(card.sound, whole_sound(all_tokens))


@pytest.mark.parametrize(("behind_s", "faster"), [(9.0, True), (0.0, False)])
async def test_a_sound_card_that_is_late_plays_a_little_faster(
    behind_s: float, faster: bool
) -> None:
    now = [100.0]
    card = FakeCard()
    clock = lambda: now[0]  # noqa: E731
    all_tokens = tokens(1000)
    script = Script(hello(stream="s"), *token_messages(all_tokens[:48]), then="wait")
    listener = scripted(Output([], card, clock=clock), script, clock=clock)
    running = asyncio.create_task(play(listener))
    while not listener.samples:
        await asyncio.sleep(0.001)
    for count in range(1, 20):
        now[0] += 1.92
        card.buffered_samples = round(behind_s * 48_000)
        script.add(token_messages(all_tokens)[count])
        while listener.session.next_token < 48 * (count + 1):
            await asyncio.sleep(0.001)
        while card.samples < (48 * (count + 1) - 12) // 8 * 8 * 1920:
            await asyncio.sleep(0.001)
    assert card.speed == listener.reserve.speed
    assert (card.speed == 1.01) is faster
    assert (card.speed < 1.0) is not faster
    await stop(running)


@pytest.mark.parametrize(
    ("catch_up", "left_out"), [(CatchUp.JUMP, True), (CatchUp.SPEED, False), (CatchUp.NONE, False)]
)
async def test_with_jump_a_delay_that_grew_on_an_unbroken_connection_is_left_out(
    catch_up: CatchUp, left_out: bool
) -> None:
    """The connection stands still for 20 s, the card runs dry, and then all comes in one go."""
    now = [100.0]
    card, file = FakeCard(), MemorySink()
    all_tokens = tokens(1200)
    packets = token_messages(all_tokens)
    clock = lambda: now[0]  # noqa: E731
    script = Script(hello(), *packets[:1], then="wait")
    output = Output([file], card, clock=clock)
    listener = scripted(output, script, clock=clock, catch_up=catch_up)
    running = asyncio.create_task(play(listener))

    async def play_in_time(first: int, end: int) -> None:
        for count in range(first, end):
            now[0] += 1.92
            script.add(packets[count])
            while listener.position_s * 25 < (48 * (count + 1) - 12) // 8 * 8:
                await asyncio.sleep(0.001)

    while not card.samples:
        now[0] += 0.1
        await asyncio.sleep(0.001)
    await play_in_time(1, 10)
    now[0] += 20.0
    card.gate.clear()  # no time passes, so nothing is heard, while these come
    script.add(*packets[10:21])
    while listener.session.next_token < 21 * 48:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    card.gate.set()
    await play_in_time(21, 25)
    script.add(End(1200).encode(), None)  # type: ignore[arg-type]
    await running
    assert (card.dropped == 1) is left_out
    whole = whole_sound(all_tokens)
    assert (file.samples < whole.shape[1] - 48_000) is left_out
    tail = 80 * 1920
    assert np.allclose(file.sound[:, -tail:], whole[:, -tail:], atol=1e-3)
    assert steps(file.sound) <= 1.2 * steps(whole)
