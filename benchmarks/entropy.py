"""Measures entropy coding: bits a token and bytes a packet, against 14 bits and plain packets.

``python -m benchmarks.entropy FOLDER [FOLDER]``: recordings are encoded with nano, and their tokens
coded packet by packet as a sender would, each packet conditioned on nothing, on what came since the
last packet that stands for itself (one every ten seconds), or on all that came (at most
``CONTEXT`` tokens). Every packet of the last kind at the default interval is decoded again and
compared. Recordings count alike; spreads are between them. A second folder is a row of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.recordings import MusicError, find, load
from codec.constants import TOKEN_RATE
from codec.nano.entropy.coder import CONTEXT, TokenCoder, coder_for
from codec.nano.entropy.network import EntropyNetwork
from codec.packing import packed_size
from streaming.wire.messages import CODED_HEADER, TOKENS_HEADER

if TYPE_CHECKING:
    from codec.base import Codec

__all__ = ["INTERVALS", "MODES", "Figures", "code_piece", "main", "summary"]

Ints = NDArray[np.int64]

INTERVALS: Final = (48, 25, 8)
RESET_S: Final = 10.0
MODES: Final = ("alone", "reset", "whole")


@dataclass(frozen=True)
class Figures:
    """One recording: bits a token in its whole packets, and what else was measured.

    Attributes:
        coded_bits: of the coded bytes alone.
        message_bytes: mean length of a message, five or six header bytes included, if the shorter
            of both kinds is sent.
        wrong: packets that came back as something else.
    """

    tokens: int
    coded_bits: float
    message_bytes: float
    encode_s: float
    decode_s: float | None
    wrong: int


def contexts(mode: str, interval: int, packet: int) -> int:
    """Tokens that packet number ``packet`` is conditioned on."""
    if mode == "alone":
        return 0
    if mode == "reset":
        packet %= max(1, round(RESET_S * TOKEN_RATE / interval))
    return min(CONTEXT, packet * interval)


def code_piece(
    coder: TokenCoder, tokens: Ints, interval: int, mode: str, *, decode: bool = False
) -> Figures:
    """Code the whole packets of one recording, int64 ``[n]``; at least one."""
    packets = len(tokens) // interval
    coded_bytes = message_bytes = wrong = 0
    encode_s = decode_s = 0.0
    plain = packed_size(interval) + TOKENS_HEADER.size
    for packet in range(packets):
        first = packet * interval
        context = tokens[first - contexts(mode, interval, packet) : first]
        part = tokens[first : first + interval]
        started = time.process_time()
        data = coder.encode(part, first, context)
        encode_s += time.process_time() - started
        coded_bytes += len(data)
        message_bytes += min(plain, len(data) + CODED_HEADER.size)
        if decode and len(data) < packed_size(interval):
            started = time.process_time()
            wrong += not np.array_equal(coder.decode(data, interval, first, context), part)
            decode_s += time.process_time() - started
    seconds = packets * interval / TOKEN_RATE
    return Figures(
        packets * interval,
        8 * coded_bytes / (packets * interval),
        message_bytes / packets,
        encode_s / seconds,
        decode_s / seconds if decode else None,
        wrong,
    )


def summary(pieces: Sequence[Figures], interval: int) -> str:
    """One line: means over recordings, and the range of 95 % of them, if they are normal."""
    bits = [piece.coded_bits for piece in pieces]
    mean, spread = fmean(bits), 1.96 * stdev(bits) if len(bits) > 1 else 0.0
    message = fmean(piece.message_bytes for piece in pieces)
    plain = packed_size(interval) + TOKENS_HEADER.size
    plain_bits = 8 * packed_size(interval) / interval
    decode = [piece.decode_s for piece in pieces if piece.decode_s is not None]
    cost = f"encoding {fmean(piece.encode_s for piece in pieces):.2%} of a core"
    if decode:
        cost += f", decoding {fmean(decode):.2%}, {sum(p.wrong for p in pieces)} packets wrong"
    return (
        f"{mean:6.2f} ± {spread:.2f} bits a token ({1 - mean / plain_bits:+.1%}), "
        f"{mean * TOKEN_RATE:5.0f} bit/s, message {message:5.1f} of {plain} bytes "
        f"({1 - message / plain:+.1%}); {cost}"
    )


def report(coder: TokenCoder, codec: Codec, folders: Sequence[Path], seconds: float) -> None:
    for folder in folders:
        pieces = [codec.sound2code(load(file, seconds)) for file in find([folder])]
        pieces = [piece for piece in pieces if len(piece) >= max(INTERVALS)]
        print(f"{folder}: {len(pieces)} recordings, {sum(map(len, pieces))} tokens")
        for interval in INTERVALS:
            for mode in MODES:
                decode = mode == "whole"
                figures = [
                    code_piece(coder, piece, interval, mode, decode=decode) for piece in pieces
                ]
                print(f"  {interval:3d} tokens, {mode:5}: {summary(figures, interval)}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.entropy", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each (%(default)g)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="nano's, if not the bundled")
    parser.add_argument("--model", type=Path, metavar="FILE", help="an entropy model to try")
    args = parser.parse_args(argv)
    from codec.errors import CodecError
    from codec.nano import load_nano

    try:
        codec = load_nano(args.weights)
        if args.model is not None:
            coder: TokenCoder | None = TokenCoder(EntropyNetwork.load(args.model))
        else:
            coder = coder_for(codec.digest)
        if coder is None:
            raise ValueError("there is no entropy model for these weights; name one with --model")
        report(coder, codec, args.folders, args.seconds)
    except (MusicError, CodecError, ValueError) as error:
        print(f"entropy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
