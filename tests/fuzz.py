"""Every parser of what comes from outside, fed with mutations of a kept corpus.

``python -m tests.fuzz --minutes 60`` (`make fuzz`) runs until the time or ``--inputs`` are used up.
An input that raises what it should not or takes longer than ``SLOW_S`` is written into
``tests/corpus/TARGET/``, where the tests find it from then on; memory that grows fails the run.
Mutations are random, not guided by coverage; what guides them are the corpus and a dictionary of
the formats' own words.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from codec.errors import DataError
from codec.nano.weights import BUNDLED_SHA256
from codec.packing import unpack_tokens
from streaming.audio.sources import RawFormat
from streaming.errors import ProtocolError, SettingsError, SourceError, TransportError
from streaming.files.muc import MucReader
from streaming.files.muc.messages import end_token
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.stream.sender_session import SenderSession
from streaming.stream.timeline import StartAt, parse_duration_s
from streaming.support.guard import AuthTokens, read_auth_tokens
from streaming.transports.oneway.hello import Fec
from streaming.transports.oneway.ports import SerialAddress, UdpAddress
from streaming.transports.oneway.receiver import OneWayReceiver
from streaming.wire.messages import Failure, Publish, StreamInfo, Title
from streaming.wire.parsing import decode

__all__ = ["CORPUS", "TARGETS", "Finding", "corpus", "fuzz"]

CORPUS: Final = Path(__file__).parent / "corpus"
SLOW_S: Final = 5.0
MOST_BYTES: Final = 70_000
MOST_GROWTH_MB: Final = 64.0
_WORDS: Final = [
    b'{"type":',
    b'"join"',
    b'"hello"',
    b'"publish"',
    b'"publisher":',
    b'"protocol":1',
    b'"history":',
    b'"next_token":',
    b'"at_s":',
    b"null",
    b"true",
    b"-1",
    b"4294967295",
    b"4294967296",
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"[" * 500,
    b"\x01\x00\x00\x00\x00",
    b"\x02\x00\x00\x00\x10\x10",
    b"\xff\xff\xff\xff",
    b"\x89MUC\r\n\x1a\n",
    b"\xf3\x50",
    b"token:",
    b"2026-11-22T20:00",
    b"24h",
    b"s16:",
    "²\u202e".encode(),
]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _allow(*errors: type[Exception]) -> Callable[[Callable[[], object]], None]:
    def call(body: Callable[[], object]) -> None:
        with suppress(*errors):
            body()

    return call


def _decode(data: bytes) -> None:
    for message in (data, _text(data)):
        _allow(ProtocolError)(lambda message=message: decode(message))  # type: ignore[misc]


def _listener(data: bytes) -> None:
    session = ListenerSession(None)
    with suppress(ProtocolError, TransportError):
        for line in data.split(b"\n")[:50]:
            binary = line[:1] in (b"\x01", b"\x02")
            session.receive(decode(line if binary else _text(line)), 0.0)


def _coded(data: bytes) -> None:
    """Lines are messages after a hello by which they can be decoded."""
    session = ListenerSession(None)
    hub = Hub(StreamInfo("nano", "nano-6", BUNDLED_SHA256, 0, "s", 16))
    session.receive(hub.hello(0, 0.0), 0.0)
    with suppress(ProtocolError, TransportError):
        for line in data.split(b"\n")[:20]:
            session.receive(decode(line), 0.0)


def _sender(data: bytes) -> None:
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, "s", 48))
    session = SenderSession(hub, 0.0)
    for line in data.split(b"\n")[:50]:
        with suppress(ProtocolError):
            session.receive(decode(_text(line)), 0.0)
        while session.take() is not None:
            pass


def _publisher(data: bytes) -> None:
    """What somebody says to a relay that waits for publishers, let in and then heard, or not."""
    hub = Hub(StreamInfo("", "", "", 0, packet_tokens=1))
    secrets = AuthTokens(["the publishers' secret"])

    def admit(publish: Publish) -> Failure | None:
        return None if secrets.admit(publish.auth_token) else Failure("auth", "No.")

    session, relay = SenderSession(hub, 0.0, admit_publisher=admit), ListenerSession(None)
    with suppress(ProtocolError, TransportError):
        for line in data.split(b"\n")[:50]:
            message = decode(line if line[:1] == b"\x01" else _text(line))
            if session.publishes:
                relay.receive(message, 0.0)
            else:
                session.receive(message, 0.0)
                while session.take() is not None:
                    pass


def _muc(data: bytes) -> None:
    path = _scratch() / "file.muc"
    path.write_bytes(data)
    with suppress(SourceError):
        info = MucReader(path).describe()
        place = info.first_token
        for item in MucReader(path).items():
            if not isinstance(item, Title):
                assert item.first_token == place
                place = end_token(item)
        assert place == info.end_token or place == info.first_token
        assert info.damaged_bytes <= len(data)


def _oneway(data: bytes) -> None:
    ours = CodecIdentity("nano", "nano-1", "a" * 64)
    for datagrams in (False, True):
        receiver, session = (
            OneWayReceiver(lambda digest: ours, datagrams=datagrams),
            ListenerSession(ours),
        )
        session.join()
        with suppress(ProtocolError, TransportError):
            for first in range(0, len(data), 300):
                for message in receiver.receive(data[first : first + 300], first / 40):
                    session.receive(message, first / 40)


def _link(data: bytes) -> None:
    for parse in (
        SerialAddress.parse,
        Fec.parse,
        lambda text: UdpAddress.parse(text, host_needed=False),
    ):
        _allow(SettingsError)(lambda parse=parse: parse(_text(data)))  # type: ignore[misc]


_FOLDERS: list[Path] = []


def _scratch() -> Path:
    if not _FOLDERS:
        _FOLDERS.append(Path(tempfile.mkdtemp(prefix="music350-fuzz-")))
    return _FOLDERS[0]


def _secrets(data: bytes) -> None:
    path = _scratch() / "secrets"
    path.write_bytes(data)
    _allow(SettingsError)(lambda: read_auth_tokens(None, path))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "protocol": _decode,
    "packing": lambda data: _allow(DataError)(lambda: unpack_tokens(data)),
    "listener": _listener,
    "coded": _coded,
    "sender": _sender,
    "publisher": _publisher,
    "muc": _muc,
    "oneway": _oneway,
    "link": _link,
    "place": lambda data: _allow(SettingsError)(lambda: StartAt.parse(_text(data))),
    "duration": lambda data: _allow(SettingsError)(lambda: parse_duration_s(_text(data))),
    "raw": lambda data: _allow(SettingsError)(lambda: RawFormat.parse(_text(data))),
    "secrets": _secrets,
}


class Finding(Exception):  # noqa: N818 (it is what one looks for)
    """A parser did what it must not; says with which input."""

    def __init__(self, target: str, data: bytes, why: str) -> None:
        super().__init__(f"{target}: {why} with {data[:100]!r}")
        self.target = target
        self.data = data


def corpus(target: str) -> list[bytes]:
    """What is kept for a target."""
    folder = CORPUS / target
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


def mutate(chance: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with a few things wrong."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randint(0, len(data))
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 2:
            data[at:at] = chance.choice(_WORDS)
        elif kind == 3:
            del data[at : at + chance.choice((1, 2, 8, 64))]
        elif kind == 4:
            other = chance.choice(seeds)
            data[at:] = other[chance.randint(0, len(other)) :]
        elif kind == 5:
            data[at:at] = data[at : at + chance.choice((1, 8, 100))] * chance.choice((1, 2, 50))
        else:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 30)))
    return bytes(data[:MOST_BYTES])


def run_one(target: str, data: bytes) -> None:
    """Feed one input. Raises Finding."""
    began_s = time.process_time()
    try:
        TARGETS[target](data)
    except Exception as error:
        raise Finding(target, data, f"{type(error).__name__}: {error}") from error
    if time.process_time() - began_s > SLOW_S:
        raise Finding(target, data, "too slow")


def fuzz(target: str, inputs: int, seed: int, until_s: float = float("inf")) -> int:
    """Feed up to ``inputs`` mutations, or until ``until_s``; returns how many. Raises Finding."""
    chance = random.Random(seed)
    seeds = corpus(target) or [b""]
    for count in range(inputs):
        if time.monotonic() >= until_s:
            return count
        run_one(target, mutate(chance, seeds))
    return inputs


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    until_s = time.monotonic() + 60 * options.minutes
    done, round_number, memory_mb = 0, 0, 0.0
    try:
        while done < options.inputs and time.monotonic() < until_s:
            for target in TARGETS:
                seed = options.seed + 1000 * round_number
                done += fuzz(target, 2000, seed, until_s)
            round_number += 1
            if round_number == 5:
                memory_mb = _memory_mb()
    except Finding as finding:
        folder = CORPUS / finding.target
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"found-{hashlib.sha256(finding.data).hexdigest()[:12]}"
        path.write_bytes(finding.data)
        sys.stdout.write(f"{finding}\nkept as {path}\n")
        return 1
    growth_mb = _memory_mb() - memory_mb if memory_mb else 0.0
    sys.stdout.write(f"{done} inputs, nothing found; memory grew by {growth_mb:.1f} MB\n")
    return 1 if growth_mb > MOST_GROWTH_MB else 0


if __name__ == "__main__":
    sys.exit(main())
