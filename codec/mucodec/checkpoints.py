"""The release's three checkpoint files: read safely, checked, converted once to one safetensors.

The files are pickles. They are read with torch's restricted unpickler, which runs nothing that a
file names. The encoder's own file was written by fairseq and names classes of fairseq, omegaconf
and the like in its settings; for these an empty stand-in is put, which swallows what it is given.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from codec.errors import WeightsError
from codec.mucodec.config import MuCodecConfig
from codec.mucodec.model import MuCodecModel, unused

__all__ = ["ENCODER", "FORMAT", "RELEASE", "VAE", "WHOLE", "convert", "gather", "has_encoder"]

WHOLE, ENCODER, VAE = "mucodec.pt", "muq.pt", "audioldm_48k.pth"
RELEASE = {WHOLE: "ckpt/mucodec.pt", ENCODER: "muq_dev/muq.pt", VAE: "tools/audioldm_48k.pth"}
"""The release's files, and where its readme puts each."""
FORMAT = "music350-mucodec-1"
_FOREIGN = (
    "argparse",
    "collections",
    "enum",
    "fairseq",
    "lightning",
    "muq",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "typing",
)
"""Packages whose objects a training checkpoint holds beside its tensors."""


class _StandIn:
    """Takes the place of any foreign class or function; does nothing with what it is given."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _read(path: Path) -> Any:
    """Unpickle a checkpoint without running anything that it names."""
    if not path.is_file():
        raise WeightsError(f"there is no file {path}; fetch the release's checkpoints again")
    try:
        zipped = zipfile.is_zipfile(path)
        foreign = get_unsafe_globals_in_checkpoint(path) if zipped else []
        strange = sorted(name for name in foreign if name.split(".")[0] not in _FOREIGN)
        if strange:
            raise WeightsError(
                f"{path} holds {strange[0]}, which no checkpoint of tensors needs and which may do "
                "harm; it was not opened, fetch the release's own file"
            )
        stand_ins: Any = [(_StandIn, name) for name in foreign]
        with safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (
        RuntimeError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise WeightsError(
            f"{path} is no readable checkpoint ({_first_sentence(error)}); it may be cut short, "
            "fetch it again"
        ) from error


def _first_sentence(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].split(". ")[0].rstrip(".") if text else type(error).__name__


def _tensors(content: Any, path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The tensors by name in what a file holds, under ``key`` or at its top."""
    found = content.get(key) if key is not None and isinstance(content, Mapping) else content
    if not isinstance(found, Mapping):
        where = "" if key is None else f" under {key!r}"
        raise WeightsError(f"{path} holds no tensors{where}; it is not the release's file")
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def has_encoder(path: Path) -> bool:
    """Whether the whole model's file brings the encoder along, so that ``muq.pt`` is not needed."""
    return any(name.startswith("muencoder.") for name in _tensors(_read(path), path))


def gather(files: Mapping[str, Path], config: MuCodecConfig) -> dict[str, Tensor]:
    """Every tensor that inference needs, by the model's names.

    Args:
        files: path by name, of :data:`RELEASE`; ``muq.pt`` may lack if it is not needed.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
    """
    origin = dict.fromkeys(("",), files[WHOLE])
    found = _tensors(_read(files[WHOLE]), files[WHOLE])
    if not any(name.startswith("muencoder.") for name in found):
        if ENCODER not in files:
            raise WeightsError(
                f"{files[WHOLE]} does not hold the encoder, and {ENCODER} is not there beside it; "
                "add that file of the release"
            )
        origin["muencoder."] = path = files[ENCODER]
        own = _tensors(_read(path), path, "model")
        found |= {f"muencoder.{name}": value for name, value in own.items()}
    origin["first_stage_model."] = origin["scale_factor"] = path = files[VAE]
    # That file holds a whole other model beside these two.
    found |= {
        name: value
        for name, value in _tensors(_read(path), path, "state_dict").items()
        if name.startswith("first_stage_model.") or name == "scale_factor"
    }

    def source(name: str) -> Path:
        return origin[max((p for p in origin if name.startswith(p)), key=len)]

    with torch.device("meta"):
        model = MuCodecModel(config)
    expected = model.state_dict()
    missing, unknown = model.checkpoint_keys(found)
    for names, fault in ((missing, "lacks"), (unknown, "holds, unknown to this program,")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsError(
                f"{source(names[0])} {fault} {names[0]}{more}; give the file of the published model"
            )
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise WeightsError(
                f"{source(name)} has {name} with the shape {list(found[name].shape)} where the "
                f"published model has {list(value.shape)}; give the file of the published model"
            )
    return {
        name: found[name].to(value.dtype).contiguous()
        for name, value in expected.items()
        if not unused(name, config)
    }


def convert(files: Mapping[str, Path], config: MuCodecConfig, out: Path) -> None:
    """Write one safetensors file of all that inference needs; the same input, the same bytes."""
    state = gather(files, config)
    # A single entry: the order of several would not be fixed.
    save_file(state, out, metadata={"music350": json.dumps({"format": FORMAT})})
