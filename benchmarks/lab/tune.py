"""The best preset for a link: ``python -m benchmarks.lab.tune --link iridium --latency 8``.

Packets of several lengths, each with as much reserve as the latency leaves and with little, are
sorted out by arithmetic (what cannot fit into the link's rate, or into the latency) and the rest
are tried. The best is the one with the least silence; among equals the one that sounds best, then
the one that sends least. It is written as a file for ``--preset`` of ``server.py`` and
``client.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import lab
from benchmarks.lab.charts import Group, grouped
from benchmarks.lab.network import TCP_HEADER_BYTES
from benchmarks.lab.settings import Setting
from benchmarks.lab.trial import load_codec
from benchmarks.recordings import MusicError, find
from codec.constants import TOKEN_BITS, TOKEN_RATE
from codec.errors import CodecError
from streaming.errors import UserError
from streaming.files.atomic import written_whole
from streaming.support.compute import use_threads
from streaming.wire.messages import TOKENS_HEADER

if TYPE_CHECKING:
    from codec.base import Codec

__all__ = ["TuneError", "best", "candidates", "main", "preset_text"]

DEMO = Path(__file__).parents[2] / "streaming" / "data" / "demo.ogg"
_PACKETS = (8, 16, 24, 32, 48, 72, 96, 144, 192)
_LEAST_MARGIN_S = 0.2
_MOST_MARGIN_S = 8.0
_FRAME_BYTES = 3  # of a WebSocket, with a share of the pings
_ROOM = 0.92  # of the link's rate: more than that, and nothing is ever caught up
_MOST_RTF = 0.8


class TuneError(Exception):
    """No preset does it; one sentence that says why."""


@dataclass(frozen=True)
class _Estimate:
    wire_bits_per_s: float
    latency_s: float


def wire_bits_per_s(packet_tokens: int) -> float:
    """What a stream takes with packets of this length, headers included."""
    overhead = TOKENS_HEADER.size + _FRAME_BYTES + TCP_HEADER_BYTES
    return TOKEN_RATE * TOKEN_BITS + 8 * overhead * TOKEN_RATE / packet_tokens


def _estimate(setting: Setting, codec: Codec, link: lab.LinkModel) -> _Estimate:
    packet, encoder = setting.encoder(codec)
    decoder = setting.decoder(codec)
    wire = wire_bits_per_s(packet)
    held = max((n * packet - decoder.lookahead) % decoder.hop for n in range(1, decoder.hop + 1))
    tokens = packet + encoder.lookahead + decoder.lookahead + held
    on_link_s = wire * packet / TOKEN_RATE / link.rate_bits_per_s + link.delay_s + link.jitter_s
    return _Estimate(wire, tokens / TOKEN_RATE + on_link_s + setting.margin_s)


def candidates(
    codec: Codec, link: lab.LinkModel, latency_s: float, steps: int | None = None
) -> list[Setting]:
    """Settings that may do it by arithmetic. Raises TuneError if none can."""
    made, least_wire, least_latency_s = [], float("inf"), float("inf")
    for packet in _PACKETS:
        # A packet is whole hops on both sides, so that nothing waits for a hop to fill.
        hop = max(h for h in (8, 12, 16, 24) if packet % h == 0)
        setting = Setting(
            codec=codec.name,
            packet=packet / TOKEN_RATE,
            hop=hop / TOKEN_RATE,
            margin=_LEAST_MARGIN_S,
            most_margin=_LEAST_MARGIN_S,
            steps=steps,
        )
        guess = _estimate(setting, codec, link)
        least_wire = min(least_wire, guess.wire_bits_per_s)
        if guess.wire_bits_per_s > _ROOM * link.rate_bits_per_s:
            continue
        least_latency_s = min(least_latency_s, guess.latency_s)
        spare_s = latency_s - guess.latency_s
        if spare_s < 0:
            continue
        most_s = round(min(_MOST_MARGIN_S, _LEAST_MARGIN_S + 0.9 * spare_s), 2)
        for margin_s in dict.fromkeys((_LEAST_MARGIN_S, most_s)):
            made.append(replace(setting, margin=margin_s, most_margin=most_s))
    if least_latency_s == float("inf"):
        raise TuneError(
            f"This link carries {link.rate_bits_per_s:g} bit/s, and over TCP/IP the stream takes "
            f"{least_wire:.0f} bit/s at least; --serial and --udp have less on top of the tokens."
        )
    if not made:
        raise TuneError(
            f"On this link the latency is at least {least_latency_s:.1f} s; allow more of it."
        )
    return made


def best(groups: Sequence[Group], latency_s: float, cpu_factor: float) -> Group:
    """The best of what was tried. Raises TuneError if none is good enough."""

    def fits(group: Group) -> bool:
        figures = [group.mean(name) for name in ("latency_s", "encode_rtf", "decode_rtf")]
        if any(value is None for value in figures) or any(r.problem for r in group.results):
            return False
        latency, *rtf = (value or 0.0 for value in figures)
        return latency <= latency_s and max(rtf) * cpu_factor <= _MOST_RTF

    fit = [group for group in groups if fits(group)]
    if not fit:
        raise TuneError(
            "None of the settings tried played on this link within that latency; allow more of it, "
            "or a faster processor."
        )

    def rank(group: Group) -> tuple[float, ...]:
        return (
            round(group.mean("silent_share") or 0.0, 3),
            round(group.mean("log_mel") or 0.0, 2),
            round(group.mean("wire_bits_per_s") or 0.0),
            group.mean("latency_s") or 0.0,
        )

    return min(fit, key=rank)


def preset_text(group: Group, codec: Codec, remark: str) -> str:
    """A file for ``--preset``: options of both programs under names of their own."""
    setting = Setting(**group.results[0].trial["setting"])
    packet, encoder = setting.encoder(codec)
    decoder = setting.decoder(codec)
    steps = "" if setting.steps is None else f"steps = {setting.steps}\n"
    return (
        f"# {remark}\n\n"
        f"[server]\npacket-tokens = {packet}\nhop = {encoder.hop}\n"
        f"lookahead = {encoder.lookahead}\n"
        f"\n[client]\nhop = {decoder.hop}\nlookahead = {decoder.lookahead}\n"
        f"context = {decoder.context}\nbuffer = {setting.margin_s:g}\n"
        f"most-buffer = {setting.most_margin:g}\ncatch-up = {setting.catch_up}\n{steps}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lab.tune",
        description="Find the best preset for a link, and write it for --preset.",
    )
    parser.add_argument("songs", type=Path, nargs="*", help="recordings (default: the demo's)")
    parser.add_argument("--link", required=True, help="a name or a description, as for the lab")
    parser.add_argument("--latency", type=float, required=True, help="at most so many seconds")
    parser.add_argument("--cpu-factor", type=float, default=1.0, help="how much slower the CPU is")
    parser.add_argument("--codec", default="nano")
    parser.add_argument("--seconds", type=float, default=120, help="of stream in each trial (120)")
    parser.add_argument("--jobs", type=int, help="processes (default: one a core)")
    parser.add_argument("--work", type=Path, default=Path("lab-out"), help="folder of the trials")
    parser.add_argument("--out", type=Path, default=Path("preset.ini"), help="file to write")
    args = parser.parse_args(argv)
    if args.latency <= 0 or args.seconds < 10 or args.cpu_factor <= 0:
        parser.error("--latency and --cpu-factor are more than 0, --seconds is at least 10")
    use_threads(1)
    try:
        print(_tune(args))
    except (
        TuneError, MusicError, CodecError, UserError, OSError, ValueError,
    ) as error:  # fmt: skip
        parser.error(str(error))


def _tune(args: argparse.Namespace) -> str:
    songs = find(args.songs or [DEMO])
    link, codec = lab.parse_link(args.link), load_codec(args.codec)
    found: Group | None = None
    for steps in (None, 0):
        settings = candidates(codec, link, args.latency, steps)
        trials = [
            lab.Trial(
                song,
                setting,
                link,
                args.link,
                seconds=args.seconds,
                compared_s=min(20.0, args.seconds),
                cpu_factor=args.cpu_factor,
            )
            for song in songs
            for setting in settings
        ]

        def done(number: int, trial: lab.Trial, of: int = len(trials)) -> None:
            print(f"{number}/{of}: {trial.setting.label}", file=sys.stderr, flush=True)

        groups = grouped(lab.run_all(trials, args.work, jobs=args.jobs, done=done))
        try:
            found = best(groups, args.latency, args.cpu_factor)
            break
        except TuneError:
            if steps == 0:
                raise
            print("with fewer evaluations of the flow, to compute less:", file=sys.stderr)
    assert found is not None
    told = (
        f"link {args.link}: latency {found.mean('latency_s'):.1f} s, "
        f"wire {found.mean('wire_bits_per_s'):.0f} bit/s, "
        f"silence {100 * (found.mean('silent_share') or 0):.1f} % of {args.seconds:g} s"
    )
    with written_whole(args.out) as part:
        part.write_text(preset_text(found, codec, told), encoding="utf-8")
    return (
        f"{found.label}\n{told}\nWritten to {args.out}: server.py SONG --preset {args.out}, "
        f"client.py --preset {args.out} --play"
    )


if __name__ == "__main__":
    main()
