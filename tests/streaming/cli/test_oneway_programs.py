"""One-way links with real devices and sockets: pseudo-terminals, datagrams on loopback, programs.

Nothing is timed: every wait is for something that happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import serial
import soundfile

import codec
from benchmarks.lab.lossy import GilbertElliott
from streaming.cli import client, server
from streaming.cli.oneway import oneway_dial, oneway_outlet
from streaming.errors import ProtocolError, SettingsError, TransportError, UserError
from streaming.files.muc import MucReader
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.support.status_line import StatusLine
from streaming.transports.link import Link
from streaming.transports.oneway import connection as connection_module
from streaming.transports.oneway import ports as ports_module
from streaming.transports.oneway import publisher as publisher_module
from streaming.transports.oneway.connection import OneWayDial
from streaming.transports.oneway.framing import Kind, encode_frame
from streaming.transports.oneway.hello import Fec, OneWayHello
from streaming.transports.oneway.ports import SerialAddress, UdpAddress
from streaming.transports.oneway.publisher import OneWay, OneWayPublisher
from streaming.transports.reconnecting import Backoff
from streaming.wire.messages import End, Gap, Hello, Join, StreamInfo, Title, Tokens
from tests import ROOT
from tests.support.fake_codec import FakeCodec, load_fake
from tests.support.programs import Programs, programs

__all__ = ["programs"]

OURS = CodecIdentity("fake", "fake-1", FakeCodec.digest)
PATIENCE_S = 60.0
QUICK = Backoff(first_s=0.02, most_s=0.1)


class Cable:
    """Two pseudo-terminals, and a thread that carries bytes from the one to the other.

    spoil: what becomes of the bytes on the way.
    """

    def __init__(self, spoil: Callable[[bytes], bytes] = lambda data: data) -> None:
        self._spoil = spoil
        self.carried = b""
        self._ended = threading.Event()
        self._near, near = os.openpty()
        self._far, far = os.openpty()
        self._ends = [near, far]
        for end in self._ends:
            tty.setraw(end)
        self.sender, self.listener = map(os.ttyname, self._ends)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = os.read(self._near, 4096)
                self.carried += data
                os.write(self._far, self._spoil(data))

    def stall(self) -> None:
        """From now on nothing is read from the sender."""
        self._spoil = self._wait

    def _wait(self, data: bytes) -> bytes:
        self._ended.wait()
        return data

    def unplug_listener(self) -> None:
        """The device goes away."""
        os.close(self._ends.pop())
        os.close(self._far)

    def close(self) -> None:
        self._ended.set()
        for fd in (*self._ends, self._far, self._near):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def cable() -> Iterator[Callable[..., Cable]]:
    made: list[Cable] = []

    def make(*arguments) -> Cable:
        made.append(Cable(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def song(tmp_path):
    """Thirty seconds of noise."""
    path = tmp_path / "song.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (30 * 48_000, 2)), 48_000)
    return path


def make_hub(stream="stream", packet_tokens=8, digest=FakeCodec.digest):
    return Hub(StreamInfo("fake", "fake-1", digest, 5, stream, packet_tokens))


def music(first, count=8):
    return Tokens(first, (np.arange(first, first + count) * 7919 + 31) % 16_384)


def publish(hub, packets=1):
    for _ in range(packets):
        tokens = music(hub.next_token, hub.info.packet_tokens).tokens
        hub.publish(tokens, time.monotonic(), 0.3, time.time())


def free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def dial_to(address):
    dial = OneWayDial(address)
    dial.known.append(OURS)
    return dial


async def until(condition):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        await asyncio.sleep(0.01)


async def collect(dial, found, **options):
    session = ListenerSession(OURS)
    session.traffic = dial.traffic
    link = Link(session, None, dial, backoff=QUICK, **options)
    try:
        async for event in link:
            found.append(event)
    finally:
        await link.close()


def listening(dial):
    """A listener that runs, what it has found so far, and the waiting until it listens."""
    found: list[object] = []
    return asyncio.create_task(collect(dial, found)), found


def count(found, kind):
    return sum(isinstance(item, kind) for item in found)


def test_a_stream_goes_over_a_serial_line_from_program_to_program(
    cable, song, programs: Programs
) -> None:
    line = cable()
    out, tape = programs.folder / "heard.wav", programs.folder / "heard.muc"
    listener = programs.start(
        *(
            "serial-listener",
            "-m",
            "tests.support.fake_client",
            "--serial",
            f"{line.listener}:1200",
        ),
        *("--out", out, "--save", tape, "--seconds", "4"),
        *("--stats", programs.folder / "serial-listener.jsonl"),
    )
    listener.until(lambda: "for a hello first" in listener.log)
    kept = programs.folder / "store"
    sender = programs.start(
        *(
            "serial-sender",
            "-m",
            "tests.support.fake_server",
            song,
            "--port",
            "0",
            "--title",
            "Noise",
        ),
        *("--preset", "low-latency", "--serial", f"{line.sender}:1200", "--store", kept),
    )
    assert listener.ends() == 0, listener.log
    assert soundfile.info(out).frames == 4 * 48_000
    assert np.abs(soundfile.read(out)[0]).max() > 0.05  # it sounds
    final = listener.final
    assert (final["lost_tokens"], final["gaps"], final["title"]) == (0, 0, "Noise")
    assert final["wire_bits_per_s"] < 600
    assert sender.interrupt() == 0, sender.log
    assert "Traceback" not in sender.log + listener.log
    assert "bit/s" in sender.log.splitlines()[-1]
    stored: dict[int, int] = {}
    for item in MucReader(next(iter(sorted(kept.glob("*.muc"))))).items():
        if isinstance(item, Tokens):
            stored.update(zip(range(item.first_token, item.end_token), item.tokens, strict=True))
    got = [item for item in MucReader(tape).items() if isinstance(item, Tokens)]
    assert sum(len(tokens.tokens) for tokens in got) >= 100
    for item in got:
        for place, token in enumerate(item.tokens, item.first_token):
            assert stored[place] == token


class LossyProxy:
    """Hands datagrams on, but for those that a bad link would lose."""

    def __init__(self, port: int, loss: float, seed: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._target = ("127.0.0.1", port)
        self._losses = GilbertElliott(loss, 1.2, seed)
        self.lost = self.passed = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while data := self._socket.recv(2048):
            if len(data) > 30 and self.passed > 20 and self._losses.lost():
                self.lost += 1
                continue
            self.passed += 1
            self._socket.sendto(data, self._target)

    def close(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("fec", [None, Fec(4, 2)])
async def test_datagrams_over_a_lossy_loopback_with_and_without_parity(fec, caplog):
    caplog.set_level("INFO")
    port = free_udp_port()
    proxy = LossyProxy(port, 0.08, seed=4)
    try:
        dial = dial_to(UdpAddress("127.0.0.1", port))
        task, found = listening(dial)
        await until(lambda: "for a hello first" in caplog.text)
        hub = make_hub(packet_tokens=48)
        settings = OneWay(UdpAddress("127.0.0.1", proxy.port), fec)
        async with OneWayPublisher(hub, settings):
            for _ in range(300):
                publish(hub)
                seen = hub.next_token
                await until(lambda seen=seen: dial_count(found) >= seen - 48 * 40)
                await asyncio.sleep(0.002)
            hub.end("over", time.monotonic())
        await asyncio.wait_for(task, PATIENCE_S)
    finally:
        proxy.close()
    packets = [item for item in found if isinstance(item, Tokens)]
    for item in packets:
        assert item == music(item.first_token, 48)
    assert proxy.lost > 10
    lost_tokens = sum(item.count for item in found if isinstance(item, Gap))
    assert isinstance(found[-1], End)
    if fec is None:
        assert lost_tokens / 48 == pytest.approx(proxy.lost, abs=2)
    else:
        assert lost_tokens / 48 < proxy.lost / 2
        assert "packets were repaired" in caplog.text
        assert "--buffer 10" in caplog.text


def dial_count(found):
    """How far the stream has come."""
    return max(
        (i.end_token for i in found if isinstance(i, Tokens)),
        default=1 << 40 if not found else 0,
    )


async def test_bytes_that_go_wrong_on_the_line_cost_packets_and_nothing_else(cable):
    chance = random.Random(2)

    def spoil(data):
        return b"".join(
            b""
            if (lot := chance.random()) < 0.002
            else bytes((b ^ 4,))
            if lot < 0.004
            else bytes((b,))
            for b in data
        )

    line = cable(spoil)
    dial = dial_to(SerialAddress(line.listener))
    task, found = listening(dial)
    hub = make_hub()
    async with OneWayPublisher(hub, OneWay(SerialAddress(line.sender, 230_400))):
        while count(found, Gap) < 3 or count(found, Tokens) < 60:
            publish(hub)
            await asyncio.sleep(0.005)
        hub.end("over", time.monotonic())
        await until(lambda: len(line.carried) > 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for item in found:
        if isinstance(item, Tokens):
            assert item == music(item.first_token, len(item.tokens))
    assert dial.traffic.wire_bytes > 0


async def test_a_listener_waits_for_its_device_and_goes_on_in_the_same_stream(
    cable, tmp_path, caplog
):
    caplog.set_level("INFO")
    line, other = cable(), cable()
    device = tmp_path / "device"
    device.symlink_to(line.listener)
    task, found = listening(dial_to(SerialAddress(str(device))))
    hub = make_hub()
    async with OneWayPublisher(hub, OneWay(SerialAddress(line.sender, 230_400))):
        while not count(found, Tokens):
            publish(hub)
            await asyncio.sleep(0.02)
    line.unplug_listener()
    device.unlink()
    await until(lambda: "coming back" in caplog.text)
    assert "is gone" in caplog.text
    publish(hub, 5)  # which nobody hears
    device.symlink_to(other.listener)
    before = count(found, Tokens)
    async with OneWayPublisher(hub, OneWay(SerialAddress(other.sender, 230_400))):
        while count(found, Tokens) == before:
            publish(hub)
            await asyncio.sleep(0.02)
        hub.end("over", time.monotonic())
    await asyncio.wait_for(task, PATIENCE_S)
    assert count(found, Hello) == 1  # it is the same stream
    assert count(found, Gap) == 1


async def test_a_sender_waits_for_its_device_and_drops_what_is_old(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(publisher_module, "_RETRY_S", 0.01)
    gone = True
    sent: list[bytes] = []

    class Flaky:
        device = "flaky"
        bits_per_s = None
        datagrams, frame_overhead = True, 0

        async def open_writer(self):
            if gone and sent:
                raise TransportError("There is no device.")
            return self

        async def write(self, frame):
            if gone and sent:
                raise TransportError("The device is gone.")
            sent.append(frame)

        def close(self):
            pass

    hub = make_hub()
    async with OneWayPublisher(hub, OneWay(Flaky())) as publisher:  # type: ignore[arg-type]
        publish(hub)
        await until(lambda: publisher.losses)
        for _ in range(100):
            publish(hub)
            await asyncio.sleep(0)
        await until(lambda: publisher.line.dropped > 20)
        before, gone = len(sent), False
        await until(lambda: "is back" in caplog.text and len(sent) > before)
        hub.end("over", time.monotonic())
    assert "waiting for the link: The device is gone." in caplog.text
    assert "frames dropped" in caplog.text


async def test_a_relay_that_begins_anew_goes_on_with_the_new_stream(caplog):
    port = free_udp_port()
    dial = dial_to(UdpAddress("127.0.0.1", port))
    task, found = listening(dial)
    hub = make_hub()
    async with OneWayPublisher(hub, OneWay(UdpAddress("127.0.0.1", port))):
        while not count(found, Tokens):
            publish(hub)
            await asyncio.sleep(0.01)
        hub.set_title("Next", hub.next_token, time.monotonic())
        hub.begin_anew(make_hub("another").info, 0)
        await until(lambda: hub._subscriptions)
        publish(hub, 4)
        hub.skip(100, time.monotonic())
        publish(hub, 4)
        await asyncio.sleep(0.05)
        long = StreamInfo("fake", "fake-1", FakeCodec.digest, 5, "third", 250)
        hub.begin_anew(long, 0)
        await until(lambda: "nothing more goes to" in caplog.text)
    assert "--packet-tokens" in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_another_sender_on_the_same_link_is_followed_when_the_first_has_gone(
    monkeypatch, caplog
):
    caplog.set_level("INFO")
    port = free_udp_port()
    dial = dial_to(UdpAddress("127.0.0.1", port))
    moment = time.monotonic
    ahead_s = 0.0
    dial._clock = lambda: moment() + ahead_s
    task, found = listening(dial)
    settings = OneWay(UdpAddress("127.0.0.1", port))
    first, second = make_hub("first"), make_hub("second")
    async with OneWayPublisher(first, settings):
        while not count(found, Tokens):
            publish(first)
            await asyncio.sleep(0.01)
        first.go_away("stopped", time.monotonic())
    ahead_s = 60.0
    async with OneWayPublisher(second, settings):
        while count(found, Hello) < 2:
            publish(second, 2)
            await asyncio.sleep(0.01)
        second.end("over", time.monotonic())
    await asyncio.wait({task}, timeout=PATIENCE_S)
    assert isinstance(found[-1], (End, Tokens, Title, Hello))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_forged_frames_end_nothing_where_both_ends_have_a_key(caplog):
    """By somebody who hears the link, and knows all of the stream but the key."""
    key, port = bytes(range(16)), free_udp_port()
    dial = OneWayDial(UdpAddress("127.0.0.1", port), key=key)
    dial.known.append(OURS)
    task, found = listening(dial)
    hub = make_hub()
    forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    forger.connect(("127.0.0.1", port))
    async with OneWayPublisher(hub, OneWay(UdpAddress("127.0.0.1", port), key=key)):
        while not count(found, Tokens):
            publish(hub)
            await asyncio.sleep(0.01)
        said = OneWayHello.of(hub.info, None)
        end = (hub.next_token + 8).to_bytes(4, "big")
        for guess in (b"", bytes(16)):
            far = said.at(hub.next_token + 48_000, 0.3).encode()
            forger.send(encode_frame(Kind.HELLO, far, key=guess))
            forger.send(encode_frame(Kind.END, end, said.context, guess))
            forger.send(encode_frame(Kind.TITLE, b"Forged", said.context, guess))
        before = count(found, Tokens)
        for _ in range(20):
            publish(hub)
            await asyncio.sleep(0.005)
        await until(lambda: count(found, Tokens) >= before + 20)
        assert not task.done()
        hub.end("over", time.monotonic())
        await asyncio.wait_for(task, PATIENCE_S)
    forger.close()
    assert count(found, Gap) == 0
    assert "Forged" not in [item.title for item in found if isinstance(item, Title)]
    assert found[-1] == End(hub.next_token)


@pytest.mark.parametrize(
    ("theirs", "ours", "asked"),
    [
        (b"k" * 16, b"", "does the sender have a --link-key-file?"),
        (b"", b"k" * 16, "has the sender the same --link-key-file?"),
        (b"j" * 16, b"k" * 16, "has the sender the same --link-key-file?"),
    ],
)
async def test_a_listener_without_the_key_is_puzzled_and_says_so(
    monkeypatch, caplog, theirs, ours, asked
):
    monkeypatch.setattr(connection_module, "_PUZZLED_S", 0.05)
    port = free_udp_port()
    dialling = asyncio.create_task(OneWayDial(UdpAddress("127.0.0.1", port), key=ours)())
    hub = make_hub()
    async with OneWayPublisher(hub, OneWay(UdpAddress("127.0.0.1", port), key=theirs)):
        while asked not in caplog.text:
            assert not dialling.done()
            publish(hub)
            await asyncio.sleep(0.01)
        hub.end("over", time.monotonic())
    dialling.cancel()
    await asyncio.gather(dialling, return_exceptions=True)


def test_the_key_is_read_from_a_file_by_both_programs(tmp_path):
    file = tmp_path / "link.key"
    for text, key in (("ab" * 16, b"\xab" * 16), (f"\ufeff{'AB' * 32}\n", b"\xab" * 32)):
        file.write_text(text, encoding="utf-8")
        given = ["--udp", "127.0.0.1:1", "--link-key-file", str(file)]
        settings = oneway_outlet(server.parse_arguments(given))
        assert settings is not None
        assert settings.key == key
        assert "ab" * 4 not in repr(settings)
        dial = oneway_dial(client.parse_arguments(given), elsewhere=False)
        assert dial is not None
        assert dial._key == key


@pytest.mark.parametrize(
    "content",
    [None, b"", b"ab" * 15, b"ab" * 33, b"a" * 33, b"xy" * 16, b"ab " * 16, b"\xff\xfe", bytes(64)],
)
@pytest.mark.parametrize("module", [server, client])
def test_a_file_without_a_key_is_refused_in_one_sentence(tmp_path, capsys, module, content):
    file = tmp_path / "link.key"
    if content is not None:
        file.write_bytes(content)
    given = ["--udp", "127.0.0.1:1", "--link-key-file", str(file)]
    assert module.main(given if module is server else [*given, "--out", "-"], load_fake) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert "Cannot read the key" in line or "openssl rand -hex 32" in line


async def test_silence_is_told_once(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(connection_module, "_SILENCE_S", 0.02)
    port = free_udp_port()
    task, found = listening(dial_to(UdpAddress("127.0.0.1", port)))
    await until(lambda: "nothing has come" in caplog.text)
    await asyncio.sleep(0.1)
    assert caplog.text.count("nothing has come") == 1
    hub = make_hub()
    async with OneWayPublisher(hub, OneWay(UdpAddress("127.0.0.1", port))):
        publish(hub)
        hub.end("over", time.monotonic())
        await asyncio.wait_for(task, PATIENCE_S)
    assert "something comes again" in caplog.text
    assert isinstance(found[-1], End)


async def test_weights_that_are_not_here_are_refused_and_the_bundled_ones_are_known():
    port = free_udp_port()
    ((name, _, bundled),) = codec.bundled()
    assert name == "nano"
    for digest, known in (("cd" * 32, False), (bundled, True)):
        dialling = asyncio.create_task(OneWayDial(UdpAddress("127.0.0.1", port))())
        hub = make_hub(digest=digest)
        async with OneWay(UdpAddress("127.0.0.1", port))(hub):
            while not dialling.done():
                hub.skip(8, time.monotonic())
                publish(hub)
                await asyncio.sleep(0.01)
            hub.end("over", time.monotonic())
        if known:
            connection = await asyncio.wait_for(dialling, PATIENCE_S)
            await connection.send(Join())
            await connection.close()
        else:
            with pytest.raises(ProtocolError, match="begins with cdcdcdcd"):
                await asyncio.wait_for(dialling, PATIENCE_S)


async def test_multicast_groups_and_hosts_that_are_none():
    group = UdpAddress.parse("239.255.35.0:9750", host_needed=True)
    try:
        reader = await group.open_reader()
    except TransportError:
        pytest.skip("no route for multicast here")
    second = await group.open_reader()  # several listeners on one machine
    reader.close()
    second.close()
    with pytest.raises(TransportError, match="Cannot send to"):
        await UdpAddress("no.such.host.invalid", 1).open_writer()
    port = free_udp_port()
    taken = await UdpAddress("127.0.0.1", port).open_reader()
    with pytest.raises(TransportError, match="Cannot listen on"):
        await UdpAddress("127.0.0.1", port).open_reader()
    taken.close()
    with pytest.raises(TransportError, match="Nothing can be received"):
        await taken.read()
    writer = await UdpAddress("127.0.0.1", free_udp_port()).open_writer()
    for _ in range(3):
        await writer.write(b"into the void")  # where nobody listens
        await asyncio.sleep(0.01)
    writer.close()


async def test_a_device_that_takes_nothing_holds_up_the_line_and_not_the_program(cable):
    line = cable()
    line.stall()
    port = await SerialAddress(line.sender, 9600).open_writer()
    writing = asyncio.create_task(port.write(bytes(1_000_000)))
    await asyncio.wait({writing}, timeout=0.2)
    assert not writing.done()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    port.close()


async def test_devices_that_cannot_be_used(cable, tmp_path, monkeypatch):
    line = cable()
    port = await SerialAddress(line.sender).open_writer()
    with pytest.raises(TransportError, match="in use"):
        await SerialAddress(line.sender).open_reader()
    port.close()
    with pytest.raises(TransportError, match="There is no device"):
        await SerialAddress(str(tmp_path / "none")).open_reader()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(TransportError, match="no serial device"):
        await SerialAddress(str(file)).open_reader()
    for error, said in (
        (PermissionError(13, "no"), "may not use"),
        (ValueError("Invalid baud rate"), "cannot be set to 9600 baud"),
    ):
        monkeypatch.setattr(serial, "Serial", raiser(error))
        with pytest.raises(TransportError, match=said):
            await SerialAddress("/dev/x").open_writer()


def raiser(error):
    def refuse(*args, **options):
        raise error

    return refuse


async def test_a_writer_whose_device_goes_says_so(cable):
    line = cable()
    port = await SerialAddress(line.sender).open_writer()
    os.close(port._serial.fd)  # type: ignore[attr-defined]
    with pytest.raises(TransportError, match="is gone"):
        await port.write(b"abc")
    with pytest.raises(TransportError, match="is gone"):
        await port.read()
    port._serial.is_open = False  # type: ignore[attr-defined]


def test_places_on_the_command_line():
    assert SerialAddress.parse("/dev/ttyS0") == SerialAddress("/dev/ttyS0", 9600)
    assert SerialAddress.parse("/dev/ttyS0:600") == SerialAddress("/dev/ttyS0", 600)
    assert str(SerialAddress("/dev/ttyS0", 600)) == "/dev/ttyS0 (600 baud)"
    assert SerialAddress("x", 600).bits_per_s == 480
    for wrong in ("", ":600", "/dev/ttyS0:", "/dev/ttyS0:fast", "/dev/ttyS0:7", "/dev/x:99999999"):
        with pytest.raises(SettingsError, match="no serial device"):
            SerialAddress.parse(wrong)
    parse = UdpAddress.parse
    assert parse("host:1", host_needed=True) == UdpAddress("host", 1)
    assert parse(":9750", host_needed=False) == UdpAddress("127.0.0.1", 9750)
    assert parse("[::1]:5", host_needed=False) == UdpAddress("::1", 5)
    assert str(UdpAddress("::1", 5)) == "udp [::1]:5"
    for wrong in ("9750", "host", "host:", "host:0", "host:70000", "::1:5", "host:1e3", ":1"):
        with pytest.raises(SettingsError, match="no place for datagrams"):
            parse(wrong, host_needed=True)


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("server", ["--serial", "/dev/none", "--udp", "h:1"], "either --serial or --udp"),
        ("server", ["--fec", "10/2"], "--fec needs a link"),
        ("server", ["--line-rate", "600"], "--line-rate needs a link"),
        ("server", ["--link-key-file", "x"], "--link-key-file needs a link"),
        ("client", ["--link-key-file", "x", "--out", "-"], "--link-key-file needs a link"),
        ("server", ["--udp", "h:1", "--fec", "2/10"], "no code"),
        ("server", ["--udp", "h:1", "--seed", str(2**32)], "room for a seed"),
        ("server", ["--udp", "h"], "no place for datagrams"),
        ("server", ["--serial", "/dev/none:x"], "no serial device"),
        ("client", ["--serial", "/dev/none", "--mqtt", "mqtt://h/t"], "Choose one of"),
        ("client", ["ws://h", "--udp", ":1"], "Choose one of"),
        ("client", ["--udp", ":1", "--from", "-10m"], "--from means nothing"),
        ("client", ["--udp", ":1", "--serial", "x"], "either --serial or --udp"),
        ("client", ["--serial", "/dev/none", "--save", "x.muc"], "There is no device /dev/none"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(program, words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = {"server": server, "client": client}[program]
    assert module.main(words, load_fake) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert said in told[-1]
    assert len(told) == 1


def test_without_pyserial_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ports_module, "serial", None)
    with pytest.raises(UserError, match="pip install"):
        SerialAddress.parse("/dev/ttyS0")


async def test_a_line_that_is_too_slow_is_refused():
    hub = make_hub()
    for settings in (
        OneWay(SerialAddress("/dev/none", 600)),
        OneWay(UdpAddress("127.0.0.1", 1), None, 450.0),
    ):
        with pytest.raises(SettingsError, match=r"needs 484 bit/s and the line carries 4[58]0"):
            OneWayPublisher(hub, settings)


async def test_tags_count_in_what_a_line_must_carry():
    place = UdpAddress("127.0.0.1", 1)
    assert OneWayPublisher(make_hub(), OneWay(place, None, 500.0)).bits_per_s < 500
    with pytest.raises(SettingsError, match="needs 585 bit/s and the line carries 500"):
        OneWayPublisher(make_hub(), OneWay(place, None, 500.0, b"k" * 16))


def test_a_sender_says_so_too(song):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.fake_server",
            song,
            "--port",
            "0",
            "--serial",
            "/dev/none",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "There is no device /dev/none" in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_program_plays_what_comes_over_udp(tmp_path):
    port = free_udp_port()
    out = tmp_path / "out.wav"
    parsed = client.parse_arguments(["--udp", f":{port}", "--out", str(out)])
    running = asyncio.create_task(client.run(parsed, load_fake, StatusLine(io.StringIO())))
    hub = make_hub()
    async with OneWayPublisher(hub, OneWay(UdpAddress("127.0.0.1", port))):
        await asyncio.sleep(0.3)
        for _ in range(100):
            publish(hub)
            await asyncio.sleep(0.01)
        hub.end("over", time.monotonic())
    await asyncio.wait_for(running, PATIENCE_S)
    assert soundfile.info(out).frames % 1920 == 0
    assert soundfile.info(out).frames >= 16 * 1920
