"""The sending side: pacing, encoding off the loop, packets, titles, the end."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from codec.base import EncoderWindow
from codec.stream import StreamEncoder
from streaming.audio.sources import Source
from streaming.errors import SourceError
from streaming.send.sender import BLOCK_SAMPLES, PacedSource, Sender
from streaming.stream.hub import Hub
from streaming.support.worker import Worker
from streaming.wire.messages import End, Join, StreamInfo, Title, Tokens
from tests.support.fake_codec import FakeCodec


class Clip(Source):
    """Plays an array as quickly as it is read; then ends, or fails with ``error``."""

    live = True

    def __init__(self, audio, error=None, block=5000):
        super().__init__()
        self._audio = audio
        self._error = error
        self._block = block
        self.closed = False
        self.threads = set()

    def _open(self):
        pass

    def _produce(self):
        self.threads.add(threading.current_thread().name)
        if not self._audio.shape[1]:
            if self._error is not None:
                raise self._error
            return None
        block, self._audio = self._audio[:, : self._block], self._audio[:, self._block :]
        return block

    def _close(self):
        self.closed = True


class Titled(Clip):
    """Changes its title at every block."""

    def _produce(self):
        block = super()._produce()
        if block is not None:
            self._set_title(f"{self._audio.shape[1]} left")
        return block


class Hanging(Clip):
    """Waits for input that never comes, until it is stopped."""

    def __init__(self):
        super().__init__(np.zeros((2, 0), np.float32))
        self.waiting = threading.Event()

    def _produce(self):
        self.waiting.set()
        self._stopped.wait()
        return None


def music(seconds, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(-0.5, 0.5, (2, round(seconds * 48_000))).astype(np.float32)


def make_hub(packet_tokens=48):
    codec = FakeCodec()
    return Hub(
        StreamInfo(codec.name, codec.weights, codec.digest, 0, packet_tokens=packet_tokens),
        history_tokens=10_000,
        max_lag_s=1e9,
    )


async def send(source, hub, **options):
    """Run a sender to the end of ``source``; returns it."""
    paced = PacedSource(source)
    worker = Worker("encoder")
    sender = Sender(paced, FakeCodec(), hub, worker, **options)
    try:
        await sender.run()
    finally:
        await paced.close()
        await worker.close()
    return sender


def sent(outbox):
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(message)
    return messages


def all_tokens(outbox):
    return np.concatenate([m.tokens for m in sent(outbox) if isinstance(m, Tokens)])


@pytest.mark.parametrize("packet_tokens", [1, 8, 48, 1000])
@pytest.mark.parametrize("block", [480, 5000])
async def test_tokens_are_those_of_the_encoder_whatever_blocks_and_packets(packet_tokens, block):
    audio = music(2.1)
    hub = make_hub(packet_tokens)
    outbox = hub.join(Join(), 0.0)
    sender = await send(Clip(audio, block=block), hub)
    messages = sent(outbox)
    packets = [message for message in messages if isinstance(message, Tokens)]
    assert all(packet.first_token % packet_tokens == 0 for packet in packets)
    assert all(len(packet.tokens) == packet_tokens for packet in packets[:-1])
    assert messages[-1] == End(53, "the source has ended")
    expected = FakeCodec().sound2code(audio)
    assert np.array_equal(np.concatenate([packet.tokens for packet in packets]), expected)
    assert sender.source_samples == audio.shape[1]
    assert sender.encode_rtf > 0


async def test_window_can_be_chosen():
    window = EncoderWindow(2, 4, 1)
    audio = music(2)
    hub = make_hub()
    outbox = hub.join(Join(), 0.0)
    await send(Clip(audio), hub, window=window)
    encoder = StreamEncoder(FakeCodec(), window)
    expected = np.concatenate([encoder.push(audio), encoder.finish()])
    assert np.array_equal(all_tokens(outbox), expected)


async def test_encoder_and_source_stay_off_the_event_loop():
    threads = set()

    class Watched(FakeCodec):
        def encode_window(self, audio, window, *, first_token):
            threads.add(threading.current_thread().name)
            return super().encode_window(audio, window, first_token=first_token)

    source = Clip(music(2))
    paced = PacedSource(source)
    worker = Worker("encoder")
    await Sender(paced, Watched(), make_hub(), worker).run()
    await paced.close()
    await worker.close()
    assert threads == {"encoder"}
    assert source.threads == {"source"}
    assert source.closed


async def test_what_is_not_sane_is_encoded_as_silence():
    audio = np.full((2, 96_000), np.nan, np.float32)
    hub = make_hub()
    outbox = hub.join(Join(), 0.0)
    await send(Clip(audio), hub)
    silence = FakeCodec().sound2code(np.zeros((2, 96_000)))
    assert np.array_equal(all_tokens(outbox), silence)


async def test_titles_are_announced_at_their_token():
    hub = make_hub()
    outbox = hub.join(Join(), 0.0)
    await send(Titled(music(1), block=24_000), hub)
    titles = [message for message in sent(outbox) if isinstance(message, Title)]
    assert titles == [Title("24000 left", 0), Title("0 left", 12)]


async def test_empty_source_ends_at_once():
    hub = make_hub()
    sender = await send(Clip(music(0)), hub)
    assert hub.ended
    assert hub.next_token == 0
    assert sender.encode_rtf is None


async def test_source_that_fails_is_sent_up_to_there():
    hub = make_hub()
    outbox = hub.join(Join(), 0.0)
    with pytest.raises(SourceError, match="broken"):
        await send(Clip(music(1), SourceError("It is broken.")), hub)
    assert sent(outbox)[-1] == End(25, "the source failed")


async def test_encoder_that_fails_ends_the_sender():
    class Failing(FakeCodec):
        def encode_window(self, audio, window, *, first_token):
            raise RuntimeError("no model")

    paced = PacedSource(Clip(music(60), block=BLOCK_SAMPLES))
    worker = Worker("encoder")
    with pytest.raises(RuntimeError, match="no model"):
        await Sender(paced, Failing(), make_hub(), worker).run()
    await paced.close()
    await worker.close()


async def test_source_that_hangs_can_be_stopped():
    source = Hanging()
    paced = PacedSource(source)
    worker = Worker("encoder")
    running = asyncio.create_task(Sender(paced, FakeCodec(), make_hub(), worker).run())
    while not source.waiting.is_set():
        await asyncio.sleep(0.001)
    running.cancel()
    await paced.close()
    await worker.close()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert source.closed


async def test_source_that_does_not_let_go_is_left_behind(monkeypatch, caplog):
    monkeypatch.setattr("streaming.send.sender._CLOSE_TIMEOUT_S", 0.01)
    caplog.set_level("DEBUG")
    waiting, release = threading.Event(), threading.Event()

    class Stuck(Clip):
        def _produce(self):
            waiting.set()
            release.wait()

    paced = PacedSource(Stuck(music(0)))
    reading = asyncio.create_task(paced.read())
    while not waiting.is_set():
        await asyncio.sleep(0.001)
    await paced.close()
    assert "does not let go" in caplog.text
    release.set()
    assert (await reading).shape == (2, 0)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s

    async def sleep(self, seconds):
        self.now_s += seconds


async def test_files_are_read_in_real_time():
    time = Time()
    source = Clip(music(2), block=BLOCK_SAMPLES)
    source.live = False
    paced = PacedSource(source, time, time.sleep)
    samples = 0
    while (block := await paced.read()).shape[1]:
        samples += block.shape[1]
        assert time() - 100.0 == pytest.approx(samples / 48_000)
    assert samples == 96_000
    await paced.close()


async def test_what_is_late_is_caught_up_or_forgiven_with_a_warning(caplog):
    time = Time()
    source = Clip(music(10), block=BLOCK_SAMPLES)
    source.live = False
    paced = PacedSource(source, time, time.sleep)
    await paced.open()
    await paced.read()
    time.now_s += 0.3
    for _ in range(5):
        await paced.read()
    assert time() == pytest.approx(100.0 + 6 * 0.08)  # caught up
    time.now_s += 3.0
    for _ in range(20):
        await paced.read()
    assert len(caplog.records) == 1
    assert "late" in caplog.text
    assert time() > 100.0 + 26 * 0.08 + 2  # the schedule slipped
    assert paced.title == ""
    await paced.close()


async def test_delay_is_measured_from_the_last_sample_of_the_packet(monkeypatch):
    time = Time()
    worker = Worker("encoder")

    async def sleep_when_all_is_encoded(seconds):
        for _ in range(5):
            await worker.run(lambda: None)
        await time.sleep(seconds)

    source = Clip(music(10), block=BLOCK_SAMPLES)
    source.live = False
    hub = make_hub(packet_tokens=8)
    delays = []
    publish = hub.publish

    def note(tokens, now_s, delay_s, unix_s, **options):
        delays.append(delay_s)
        publish(tokens, now_s, delay_s, unix_s, **options)

    monkeypatch.setattr(hub, "publish", note)
    paced = PacedSource(source, time, sleep_when_all_is_encoded)
    await Sender(paced, FakeCodec(), hub, worker, clock=time).run()
    await paced.close()
    await worker.close()
    # Four tokens of lookahead; this time stands still while computing.
    assert delays[:30] == pytest.approx([4 / 25] * 30)
