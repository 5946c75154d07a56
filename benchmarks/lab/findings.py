"""What came of a trial: its figures, the terms of its latency, the sound that was heard."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from numpy.typing import NDArray

from benchmarks.analysis import Analysis
from benchmarks.lab.engine import Engine
from benchmarks.lab.network import DOWN
from benchmarks.lab.trial import Result
from benchmarks.measures import compare
from benchmarks.metrics import seam_jump
from codec.constants import CHANNELS, SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE

__all__ = ["Findings"]

Audio = NDArray[np.float32]


class Findings:
    """Of an engine that has run."""

    def __init__(self, run: Engine) -> None:
        self._run = run

    def result(self) -> Result:
        """All figures."""
        first_at_s = self._run.output.first_at_s
        figures: dict[str, float | None] = {
            "start_s": None if first_at_s is None else first_at_s - self._run.began_s,
            "latency_s": _median(self._run.resting_latency_s),
            "latency_most_s": max(self._run.resting_latency_s, default=None),
            "wire_bits_per_s": sum(self._run.wire.values()) if self._run.wire else None,
            "back_bits_per_s": self._run.back_bits_per_s if self._run.wire else None,
            "underruns": self._run.underruns,
            "silent_s": round(self._run.silent_s, 3),
            "silent_share": self._run.silent_s / max(1e-9, self._run.ended_s - self._run.began_s),
            "lost_tokens": self._run.listener.session.lost_tokens,
            "reconnects": self._run.listener.reconnects,
            "dropped": self._run.hub.dropped_listeners,
            "packet_s": self._run.packet_tokens / TOKEN_RATE,
            "encoder_window_s": self._run.encoder_window.tokens / TOKEN_RATE,
            "decoder_window_s": self._run.decoder_window.tokens / TOKEN_RATE,
            "encoder_hop_s": self._run.encoder_window.hop / TOKEN_RATE,
            "decoder_hop_s": self._run.decoder_window.hop / TOKEN_RATE,
            "lost_packets": self._run.loop.network.ways[DOWN].lost,
            "encode_rtf": self._rtf("encode", self._run.hub.next_token / TOKEN_RATE),
            "decode_rtf": self._rtf("decode", self._decoded_s()),
            **self._quality(),
        }
        return Result(
            self._run.trial.as_dict(),
            self._run.trial.setting.label,
            figures,
            self._terms(figures["latency_s"]),
            self._run.wire,
            self._run.series,
            self._run.problem,
        )

    def save(self, stem: Path) -> None:
        """Write the original, and what the sound card played, as files to listen to."""
        original, _ = self._pair()
        heard = self._run.card.heard
        for name, sound in (("original", original), ("heard", heard)):
            if sound.shape[1]:
                path = stem.with_name(f"{stem.name}-{name}.ogg")
                frames = np.clip(sound.T, -1, 1)
                with sf.SoundFile(path, "w", SAMPLE_RATE, CHANNELS, format="OGG") as file:
                    for start in range(0, len(frames), 4096):  # libsndfile's stack is small
                        file.write(frames[start : start + 4096])

    def _decoded_s(self) -> float:
        return self._run.listener.samples / SAMPLE_RATE

    def _rtf(self, worker: str, sound_s: float) -> float | None:
        return self._run.loop.busy_s[worker] / sound_s if sound_s else None

    def _pair(self) -> tuple[Audio, Audio]:
        """Original and decoded sound of the same part of the stream, each ``[2, n]``."""
        decoded = self._run.decoded
        first = decoded.first_sample or 0
        original = self._run.source.kept[:, first:]
        count = min(original.shape[1], decoded.end)
        count -= count % SAMPLES_PER_TOKEN
        return original[:, :count], decoded.sound[:, :count]

    def _quality(self) -> dict[str, float | None]:
        original, decoded = self._pair()
        if original.shape[1] < SAMPLE_RATE:
            return {}
        a, b = (Analysis(torch.from_numpy(np.ascontiguousarray(x))) for x in (original, decoded))
        period = self._run.decoder_window.hop * SAMPLES_PER_TOKEN
        offset = -(self._run.decoded.first_sample or 0) % period
        return {**compare(a, b), "seam": seam_jump(b, period, offset - period)}

    def _terms(self, latency_s: float | None) -> dict[str, float]:
        """The latency, term by term; what the terms leave is the reserve."""
        if latency_s is None:
            return {}
        hop, packet = self._run.decoder_window.hop, self._run.packet_tokens
        ends = range(packet, packet * hop // math.gcd(packet, hop) + 1, packet)
        held = max((end - self._run.decoder_window.lookahead) % hop for end in ends)
        hops_s = hop / TOKEN_RATE
        encode_s = (self._rtf("encode", self._run.hub.next_token / TOKEN_RATE) or 0.0) * (
            self._run.encoder_window.hop / TOKEN_RATE
        )
        terms = {
            "packet": packet / TOKEN_RATE,
            "encoder lookahead": self._run.encoder_window.lookahead / TOKEN_RATE,
            "encoding": encode_s * self._run.trial.cpu_factor,
            "link": _median(self._run.arrivals.transits_s) or 0.0,
            "decoder lookahead": (self._run.decoder_window.lookahead + held) / TOKEN_RATE,
            "decoding": (self._rtf("decode", self._decoded_s()) or 0.0)
            * hops_s
            * self._run.trial.cpu_factor,
        }
        terms["reserve"] = max(0.0, latency_s - sum(terms.values()))
        return terms


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
