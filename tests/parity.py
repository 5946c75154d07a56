"""Every stage of the MuCodec model against golden numbers of the published one.

    python -m tests.parity tests/goldens --conformer-layers 7 --flow-layers 2 --seed 100

prints a line per file and ends with status 1 when any is out of tolerance. Weights are filled by
the recipe of :mod:`tests.support.seeded`; inputs follow from the seed. ``--precision float16``
computes as a GPU does by default: flow, VAE and vocoder in half precision, the encoder in float32
as ever, without TF32. What stays in float32 is held to float32's tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from codec.mucodec.compatible import release_codes
from codec.mucodec.config import PRECISIONS, MuCodecConfig, Precision
from codec.mucodec.dsp import halve_rate
from codec.mucodec.encoder import log_mel
from codec.mucodec.flow import sample
from codec.mucodec.level import limit_peak
from codec.mucodec.model import MuCodecModel
from codec.mucodec.precision import exact_float32
from codec.mucodec.vae import vae_log_mel
from codec.sampling import time_grid
from tests.support.seeded import fill_model, test_signal

__all__ = ["Result", "check_folder", "check_model", "filled_model", "main"]

TOLERANCES: dict[Precision, float] = {
    "float32": 1e-4,
    "float16": 4e-3,
    "bfloat16": 2e-2,
    "fp8": 3e-2,
}
HALVED = ("velocity", "sampler", "vae_decode", "vocoder")
"""Golden files of what may run in half precision, by how their names begin."""
TIE = 1e-5
"""Difference in cosine below which two codebook entries are equally near."""

Golden = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Result:
    """Outcome for one file: the worst relative error of its arrays, and whether that is fine."""

    name: str
    error: float
    ok: bool


def relative(guess: Tensor, truth: NDArray[np.generic]) -> float:
    """||guess - truth|| over ||truth||; infinite where shapes differ."""
    expected = torch.from_numpy(np.asarray(truth, dtype=np.float32))
    if guess.shape != expected.shape:
        return float("inf")
    return float((guess.float().cpu() - expected).norm() / expected.norm())


class Checks:
    """One method per kind of golden file; each returns the file's relative errors."""

    def __init__(self, model: MuCodecModel, folder: Path, seed: int) -> None:
        self.model, self.folder, self.seed = model, folder, seed
        self.device = model.scale_factor.device

    def normal(self, k: int, *shape: int) -> Tensor:
        rng = np.random.RandomState(self.seed + k)
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(self.device)

    def signal(self, seconds: float, k: int) -> Tensor:
        samples = int(seconds * 48_000)
        return torch.from_numpy(test_signal(samples, self.seed + k)).to(self.device)

    def codes(self, hidden: Tensor, truth: NDArray[np.generic]) -> float:
        """0 where codes agree, or differ between entries that are equally near; else 1."""
        quantizer = self.model.rvq_muencoder_emb
        expected = torch.from_numpy(np.asarray(truth, dtype=np.int64)).to(hidden.device)
        entries = F.normalize(quantizer.only.codebook.weight, dim=-1)
        latents = F.normalize(quantizer.only.in_proj(hidden), dim=-1)
        codes = quantizer.encode(hidden)
        gap = (latents * (entries[codes] - entries[expected])).sum(dim=-1)
        return float((gap > TIE).any())

    def conv(self) -> Tensor:
        """Output of the encoder's convolutions for the three-second signal."""
        muq = self.model.muencoder.model
        return muq.conv(log_mel(self.mono(), muq.mel_filters))

    def mono(self) -> Tensor:
        return halve_rate(limit_peak(self.signal(3.0, 0).unsqueeze(0), 0.9).mean(dim=1))

    def hidden(self) -> Tensor:
        return self.model.muencoder.model.conformer(self.conv())

    def muq_features(self, golden: Golden) -> list[float]:
        mono = self.mono()
        mel = log_mel(mono, self.model.muencoder.model.mel_filters)
        return [relative(mono[0, :4800], golden["mono24k"]), relative(mel[0], golden["mel"])]

    def muq_conv(self, golden: Golden) -> list[float]:
        return [relative(self.conv()[0], golden["out"])]

    def muq_hidden6(self, golden: Golden) -> list[float]:
        return [relative(self.hidden()[0].T, golden["hidden"])]

    def rvq(self, golden: Golden) -> list[float]:
        quantizer = self.model.rvq_muencoder_emb
        hidden, noise = self.hidden(), self.normal(1, 1, 1024, 64).transpose(1, 2)
        latents = quantizer.only.in_proj(hidden)
        codes = torch.from_numpy(np.asarray(golden["codes_random"], dtype=np.int64))
        return [
            relative(latents[0].T, golden["latents_audio"]),
            self.codes(hidden[0], golden["codes_audio"]),
            self.codes(noise[0], golden["codes_random"]),
            relative(quantizer.decode(codes.to(self.device)).T, golden["zq_random"]),
        ]

    def condition_map(self) -> Tensor:
        codes = np.random.RandomState(self.seed + 2).randint(0, 16_384, (1, 1, 1024))
        return self.model.condition(torch.from_numpy(codes[:, 0].astype(np.int64)).to(self.device))

    def condition(self, golden: Golden) -> list[float]:
        return [relative(self.condition_map()[0, :, ::64], golden["cond"])]

    def count(self, latents: Tensor) -> None:
        """Add a recording to the sums of the statistics, as the published code does.

        While it has counted few recordings, it counts each one that it normalises, at inference as
        well; the goldens were made one after the other by one such model. Ours only reads them.
        """
        statistics = self.model.normfeat
        statistics.counts += 1
        statistics.sum_x += latents[0].mean(dim=1)
        statistics.sum_x2 += latents[0].square().mean(dim=1)

    def normfeat(self, golden: Golden) -> list[float]:
        z, statistics = self.normal(3, 1, 32, 512, 32), self.model.normfeat
        self.count(z)
        return [
            relative(statistics.project(z)[0, :, ::64], golden["projected"]),
            relative(statistics.restore(z)[0, :, ::64], golden["returned"]),
        ]

    def velocity(self, golden: Golden, t: float) -> list[float]:
        z = self.normal(3, 1, 32, 512, 32)
        given = torch.zeros_like(z)
        given[:, :, :128] = z[:, :, 128:256]
        times = torch.full((1,), t, device=self.device)
        velocity = self.model.flow(z, given, self.condition_map(), times)
        return [relative(velocity[0, :, ::32], golden["v"])]

    def sampler(self, golden: Golden) -> list[float]:
        noise = self.normal(3, 1, 32, 512, 32)
        frames, guidance = int(golden["incontext"]), float(golden["cfg"])
        latents = self.normal(4, 1, 32, 512, 32)
        self.count(latents)
        truth = self.model.normfeat.project(latents)
        latents = sample(
            self.model.flow,
            noise,
            truth[:, :, :frames] if frames else None,
            self.condition_map(),
            guidance=guidance,
            times=time_grid(int(golden["steps"])),
        )
        restored = self.model.normfeat.restore(latents)
        return [relative(restored[0, :, ::16], golden["latents"])]

    def vae_decode(self, golden: Golden) -> list[float]:
        latents = self.normal(5, 2, 16, 16, 32)
        scale = float(np.float32(golden["scale_factor"]))
        mel = self.model.first_stage_model.decode(latents, scale)
        return [relative(mel, golden["mel"])]

    def vae_input(self) -> Tensor:
        return vae_log_mel(self.signal(2.0, 6).clamp(-1, 1), self.model.config.vae_mels)

    def decoder_mel(self, frames: int) -> Tensor:
        return self.vae_input()[:1, :frames]

    def vae_mel(self, golden: Golden) -> list[float]:
        return [relative(self.vae_input(), golden["mel"])]

    def vae_encode(self, golden: Golden) -> list[float]:
        mean, log_variance = self.model.first_stage_model.encode(self.decoder_mel(128))
        return [relative(mean[0], golden["mean"]), relative(log_variance[0], golden["logvar"])]

    def vocoder(self, golden: Golden) -> list[float]:
        sound = self.model.first_stage_model.vocoder(self.decoder_mel(48))
        return [relative(sound[0], golden["wav"])]

    def sound2code_45s(self, golden: Golden) -> list[float]:
        codes = release_codes(self.model, self.signal(45.5, 7))
        expected = torch.from_numpy(np.asarray(golden["codes"], dtype=np.int64))
        if codes.shape != expected.shape:
            return [float("inf")]
        # The hidden states behind the codes are not at hand here: a tie may turn one of them.
        return [float((codes.cpu() != expected).sum() > 1)]

    def run(self, name: str, golden: Golden) -> list[float]:
        """Errors of one golden file by its name; KeyError for a kind that is not known."""
        kinds: dict[str, Callable[[Golden], list[float]]] = {
            kind: getattr(self, kind)
            for kind in (
                "muq_features",
                "muq_conv",
                "muq_hidden6",
                "rvq",
                "condition",
                "normfeat",
                "vae_decode",
                "vae_mel",
                "vae_encode",
                "vocoder",
                "sound2code_45s",
            )
        }
        if name.startswith("velocity_t"):
            return self.velocity(golden, float(name.removeprefix("velocity_t")))
        if name.startswith("sampler_"):
            return self.sampler(golden)
        return kinds[name](golden)


def filled_model(flow_layers: int, device: str = "cpu") -> MuCodecModel:
    """The model in full width with the seeded weights."""
    model = MuCodecModel.unfilled(MuCodecConfig(flow_layers=flow_layers))
    fill_model(model)
    return model.to(device).eval()


def check_folder(
    folder: Path,
    flow_layers: int,
    seed: int,
    device: str = "cpu",
    only: Sequence[str] | None = None,
    precision: Precision = "float32",
) -> list[Result]:
    """See :func:`check_model`, which this has a model filled for."""
    return check_model(filled_model(flow_layers, device), folder, seed, only, precision)


@torch.inference_mode()
@exact_float32()
def check_model(
    model: MuCodecModel,
    folder: Path,
    seed: int,
    only: Sequence[str] | None = None,
    precision: Precision = "float32",
) -> list[Result]:
    """Compare the golden files of a folder (or ``only`` some) with what a filled model computes.

    precision: of flow, VAE and vocoder, which stay in it; what they compute in half precision may
    be off by more.
    """
    model.prepare(precision)
    statistics = {name: value.clone() for name, value in model.normfeat.state_dict().items()}
    checks = Checks(model, folder, seed)
    results = []
    # In the order in which they were made, which matters to the statistics of latents.
    last = ("normfeat", "sampler_start", "sampler_context", "sampler_nocfg")
    order = {name: index for index, name in enumerate(last, 1)}
    files = [file for file in folder.glob("*.npz") if only is None or file.stem in only]
    for file in sorted(files, key=lambda file: (order.get(file.stem, 0), file)):
        with np.load(file) as golden:
            errors = checks.run(file.stem, dict(golden))
        worst = max(errors)
        most = TOLERANCES[precision if file.stem.startswith(HALVED) else "float32"]
        results.append(Result(file.stem, worst, worst <= most))
    model.normfeat.load_state_dict(statistics)
    return sorted(results, key=lambda result: result.name)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of golden .npz files")
    parser.add_argument(
        "--conformer-layers",
        type=int,
        default=7,
        help="of the model that the goldens come from; six are built, whatever it had",
    )
    parser.add_argument("--flow-layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    args = parser.parse_args(argv)
    if args.conformer_layers < MuCodecConfig.hidden_layer:
        print(
            f"parity: the codec uses {MuCodecConfig.hidden_layer} conformer layers, goldens of a "
            f"model with {args.conformer_layers} cannot be met",
            file=sys.stderr,
        )
        return 2
    if not any(args.folder.glob("*.npz")):
        print(f"parity: there are no golden files (*.npz) in {args.folder}", file=sys.stderr)
        return 2
    results = check_folder(
        args.folder,
        args.flow_layers,
        args.seed,
        args.device,
        precision=args.precision,
    )
    for result in results:
        print(f"{result.name:18} {result.error:9.2e}  {'ok' if result.ok else 'OUT OF TOLERANCE'}")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
