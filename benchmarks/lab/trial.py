"""One trial: a song, a setting and a link, through the real engine in simulated time.

    Playlist ─► PacedSource ─► Sender ─► Hub ─► WebSocketServer ═ simulated link ═ Link ─► Listener

Everything between the file and the sound card is what ``server.py`` and ``client.py`` run; only the
clock, the network and the card are simulated.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import codec as codecs
from benchmarks.lab.links import LinkModel
from benchmarks.lab.network import Network
from benchmarks.lab.settings import Setting, SettingError
from benchmarks.lab.simulated_time import simulate
from codec.base import Codec

__all__ = ["Result", "Trial", "run"]

TRANSPORTS: Final = ("websocket", "udp", "serial")


@dataclass(frozen=True)
class Trial:
    """What to run.

    seconds: of stream from when the listener comes. compared_s: how much of it is compared with the
    original. cpu_factor: how many times as long as here computing takes. seed: of the link's lots.
    """

    song: Path
    setting: Setting = field(default_factory=Setting)
    link: LinkModel = field(default_factory=LinkModel)
    link_name: str = ""
    seconds: float = 60.0
    compared_s: float = 30.0
    cpu_factor: float = 1.0
    seed: int = 0

    @property
    def key(self) -> str:
        """Names the trial: another song, setting, link or weights make another key."""
        stat = self.song.stat()
        weights = hashlib.sha256()
        if self.setting.codec == "nano":
            from codec.nano.weights import BUNDLED_SHA256

            weights.update(BUNDLED_SHA256.encode())
        told = {
            **self.as_dict(),
            "size": stat.st_size,
            "changed": stat.st_mtime_ns,
            "weights": weights.hexdigest(),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = asdict(self)
        values["song"] = str(self.song.resolve())
        values["link"] = self.link.as_dict()
        return values


@dataclass(frozen=True)
class Result:
    """What came of a trial; None if there was nothing to measure.

    figures: by name, see docs/lab.md. terms_s: what the latency consists of. wire: bits a second by
    kind, from sender to listener. series: ``t``, and as long as it is ``buffer``, ``target``,
    ``latency``; ``down``, when nothing passed. problem: what ended it too early.
    """

    trial: dict[str, Any]
    label: str
    figures: dict[str, float | None]
    terms_s: dict[str, float]
    wire: dict[str, float]
    series: dict[str, list[float | None]]
    problem: str = ""


@functools.lru_cache(maxsize=2)
def load_codec(name: str) -> Codec:
    """A codec of that name, once a process."""
    return codecs.load(name)


def run(trial: Trial, audio_to: Path | None = None) -> Result:
    """Run a trial.

    audio_to: stem of the files for the original and for what was heard. Raises UserError,
    CodecError or SettingError where it cannot begin.
    """
    from benchmarks.lab.engine import Engine
    from benchmarks.lab.findings import Findings

    codec = load_codec(trial.setting.codec)
    trial.setting.encoder(codec), trial.setting.decoder(codec)
    if trial.setting.transport not in TRANSPORTS:
        raise SettingError(
            f"There is no transport {trial.setting.transport!r}; choose {', '.join(TRANSPORTS)}."
        )
    network = Network(trial.link, trial.seed)
    ran = simulate(lambda loop: Engine(trial, codec, loop).run(), network, trial.cpu_factor)
    findings = Findings(ran)
    if audio_to is not None:
        findings.save(audio_to)
    return findings.result()
