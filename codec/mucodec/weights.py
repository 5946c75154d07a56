"""Where the published weights come from, and the converted file in the user's cache.

The first use downloads three checkpoints (about 9 GB) from the model hub, converts what inference
needs into one safetensors file (about 5 GB), deletes the downloads and remembers the SHA-256 of
everything. From then on no network is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import getproxies

import torch
from safetensors import SafetensorError, safe_open

from codec.errors import WeightsError
from codec.mucodec.checkpoints import ENCODER, FORMAT, RELEASE, VAE, WHOLE, convert, has_encoder
from codec.mucodec.config import MuCodecConfig
from codec.mucodec.model import MuCodecModel, Part

__all__ = [
    "REPOSITORY",
    "LoadedModel",
    "WeightsFile",
    "cache_folder",
    "convert_folder",
    "fetch",
    "load_model",
]

REPOSITORY = "yaoxunxu/mucodec"
LICENCE = (
    "The MuCodec weights are under CC-BY-NC-4.0: for noncommercial purposes only, with "
    "attribution to their authors (legal text in LICENSE_weights)."
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights; ``digest`` is the SHA-256 of the converted file."""

    model: MuCodecModel
    name: str
    digest: str


class WeightsFile(NamedTuple):
    """A converted file and its SHA-256, which names the weights in the hello."""

    path: Path
    digest: str


def cache_folder() -> Path:
    """``$MUSIC350_CACHE``, or ``music350`` in the user's cache."""
    if given := os.environ.get("MUSIC350_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "music350"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Memory:
    """What is remembered between runs, in ``known.json`` of the cache.

    hub: by repository and revision, the digests of its files and the file converted from them.
    local: the same by the digests of files that the user gave. files: digests of files seen, which
    hold as long as size and time of change do, since to read gigabytes takes seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "known.json"
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.hub: dict[str, dict[str, Any]] = dict(content["hub"])
            self.local: dict[str, dict[str, Any]] = dict(content["local"])
            self.files: dict[str, list[Any]] = dict(content["files"])
        except FileNotFoundError:
            self.hub, self.local, self.files = {}, {}, {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{self.path} cannot be read ({error}); delete it, and the digests it remembers "
                "are taken anew"
            ) from error

    def digest(self, path: Path) -> str:
        """SHA-256 of a file."""
        facts = path.stat()
        key, stamp = str(path.resolve()), [facts.st_size, facts.st_mtime_ns]
        known = self.files.get(key)
        if known is None or known[:2] != stamp:
            self.files[key] = known = [*stamp, _sha256(path)]
        return str(known[2])

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files = {k: v for k, v in self.files.items() if Path(k).exists()}
        part = self.path.with_name(f"known.{os.getpid()}.part")
        content = {"hub": self.hub, "local": self.local, "files": self.files}
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)


def _convert(memory: _Memory, files: Mapping[str, Path], config: MuCodecConfig) -> dict[str, Any]:
    """Converted file for these checkpoints: ``{"files": digests, "converted": name, "sha256"}``."""
    digests = {name: memory.digest(path) for name, path in sorted(files.items())}
    key = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    entry = memory.local.get(key)
    if entry is not None and (memory.folder / entry["converted"]).is_file():
        return entry
    memory.folder.mkdir(parents=True, exist_ok=True)
    out = memory.folder / f"mucodec-{key[:12]}.safetensors"
    part = out.with_name(f"{out.stem}.{os.getpid()}.part")
    _log.info("converting the checkpoints to %s, once", out)
    try:
        convert(files, config, part)
        part.replace(out)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{out} cannot be written ({error}); make room there, or set MUSIC350_CACHE to another "
            "folder"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    memory.local[key] = entry = {
        "files": digests,
        "converted": out.name,
        "sha256": memory.digest(out),
    }
    memory.save()
    return entry


def _intact(memory: _Memory, entry: Mapping[str, Any]) -> WeightsFile | None:
    """The converted file, if it is there; raises WeightsError if it is not what was written."""
    path = memory.folder / str(entry["converted"])
    if not path.is_file():
        return None
    digest = memory.digest(path)
    memory.save()
    if digest != entry["sha256"]:
        raise WeightsError(
            f"{path} is damaged (its SHA-256 is not the one it was written with); delete it and "
            "run `python -m codec fetch mucodec`"
        )
    return WeightsFile(path, digest)


def _release_files(folder: Path) -> dict[str, Path]:
    """The release's files in a folder, where its readme puts them or side by side."""
    files = {}
    for name, place in RELEASE.items():
        for path in (folder / place, folder / name):
            if path.is_file():
                files[name] = path
                break
    if lacking := [name for name in (WHOLE, VAE) if name not in files]:
        raise WeightsError(
            f"{folder} holds no {' and no '.join(lacking)}; give the folder with the release's "
            f"three files ({', '.join(RELEASE)})"
        )
    return files


def fetch(
    repository: str = REPOSITORY,
    revision: str | None = None,
    *,
    replace: bool = False,
    config: MuCodecConfig | None = None,
    endpoint: str | None = None,
) -> WeightsFile:
    """Download, check and convert the published checkpoints.

    If that was done before, nothing is downloaded. A broken download goes on where it stopped.

    Args:
        repository: the hub's name for the release.
        revision: branch, tag or commit.
        replace: take files that differ from those seen first.
        endpoint: address of the hub, by default ``$HF_ENDPOINT`` or the public one.

    Raises:
        WeightsError: they cannot be had, or are not what they should be.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise WeightsError(f"{repository!r} names no repository; write it as OWNER/NAME")
    folder = cache_folder() / "mucodec"
    memory = _Memory(folder)
    key = repository if revision is None else f"{repository}@{revision}"
    entry = memory.hub.get(key)
    if entry is not None and not replace and (file := _intact(memory, entry)) is not None:
        return file
    _log.warning("%s", LICENCE)
    endpoint = endpoint or os.environ.get("HF_ENDPOINT")
    downloads = folder / "downloads" / key.replace("/", "--")
    files = _download(repository, revision, downloads, endpoint)
    digests = {name: memory.digest(path) for name, path in files.items()}
    if entry is not None and not replace:
        for name, digest in digests.items():
            if entry["files"].get(name, digest) != digest:
                raise WeightsError(
                    f"{name} of {key} is not the file that was there at first (SHA-256 "
                    f"{digest[:12]}…, then {entry['files'][name][:12]}…); give the --revision of "
                    "that time, or --replace if the change is meant"
                )
    memory.hub[key] = entry = _convert(memory, files, config or MuCodecConfig())
    memory.save()
    shutil.rmtree(downloads, ignore_errors=True)
    return WeightsFile(folder / str(entry["converted"]), str(entry["sha256"]))


def convert_folder(folder: Path, *, config: MuCodecConfig | None = None) -> WeightsFile:
    """Convert the release's checkpoints in a folder, unless that was done before.

    Raises:
        WeightsError: some are missing or not what they should be.
    """
    memory = _Memory(cache_folder() / "mucodec")
    entry = _convert(memory, _release_files(folder), config or MuCodecConfig())
    file = _intact(memory, entry)
    assert file is not None  # converted a moment ago
    return file


def _download(
    repository: str, revision: str | None, folder: Path, endpoint: str | None
) -> dict[str, Path]:
    """The release's files of a hub repository, all of one commit; kept until they are converted."""
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise WeightsError(
            "to fetch the MuCodec weights takes the package huggingface_hub; run "
            "`pip install '.[mucodec]'`, or give --weights with the release's checkpoints"
        ) from error
    named = f"{repository} at {revision}" if revision else repository
    try:
        info = HfApi(endpoint=endpoint).model_info(repository, revision=revision, timeout=30)
        there = {Path(s.rfilename).name: s.rfilename for s in info.siblings or []}
        if lacking := [name for name in (WHOLE, VAE) if name not in there]:
            raise WeightsError(
                f"{named} holds no {' and no '.join(lacking)}; it is not a repository of MuCodec"
            )
        files: dict[str, Path] = {}
        for name in (WHOLE, ENCODER, VAE):
            if name == ENCODER and (ENCODER not in there or has_encoder(files[WHOLE])):
                continue
            _log.info("fetching %s from %s", there[name], named)
            url = hf_hub_url(repository, there[name], revision=info.sha, endpoint=endpoint)
            files[name] = _download_file(url, folder / name)
        return files
    except GatedRepoError as error:
        raise WeightsError(
            f"{named} is open to registered users only; log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"{repository} has no revision {revision!r}; check --revision"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(f"the hub has no repository {repository!r}; check --repo") from error
    except OfflineModeIsEnabled as error:
        raise WeightsError(
            "the MuCodec weights are not in the cache, and HF_HUB_OFFLINE forbids to fetch them; "
            "unset it once"
        ) from error
    except (HfHubHTTPError, OSError, ImportError, ValueError) as error:
        raise _broken(named, error) from error  # a proxy may want a package, or be no address
    except Exception as error:
        # The library lets the exceptions of its HTTP client through, whichever it has.
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests", "urllib3"):
            raise _broken(named, error) from error
        raise


def _download_file(url: str, path: Path) -> Path:
    """Download a file, from where an earlier run was cut off if it was; checked by its digest.

    The library's own ``hf_hub_download`` begins anew in every run, which is hard on gigabytes.
    """
    from huggingface_hub import get_hf_file_metadata, get_token
    from huggingface_hub.file_download import http_get

    facts = get_hf_file_metadata(url)
    tag = re.sub(r"\W", "", facts.etag or "")
    done = path.with_name(f"{tag[:16]}-{path.name}")
    if done.is_file():
        return done
    part = done.with_name(f"{done.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        http_get(
            url,
            file,
            resume_size=file.tell(),
            headers={"authorization": f"Bearer {token}"} if (token := get_token()) else {},
            expected_size=facts.size,
            displayed_filename=path.name,
        )
    # The hub tags large files with their SHA-256.
    if len(tag) == 64 and (digest := _sha256(part)) != tag:
        part.unlink()
        raise WeightsError(
            f"{path.name} did not arrive as the hub has it (SHA-256 {digest[:12]}…, expected "
            f"{tag[:12]}…); run `python -m codec fetch mucodec` again"
        )
    part.replace(done)
    return done


def _broken(named: str, error: Exception) -> WeightsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if proxies := [f"{kind}_proxy" for kind in ("https", "http", "all") if getproxies().get(kind)]:
        reason += f"; the way leads through the environment's {' or '.join(proxies)}"
    return WeightsError(
        f"the MuCodec weights could not be fetched from {named} ({reason}); run `python -m codec "
        "fetch mucodec` to go on where it stopped, or give --weights with the files themselves"
    )


def load_model(
    weights: Path | None = None,
    *,
    part: Part | None = None,
    config: MuCodecConfig | None = None,
) -> LoadedModel:
    """The model with weights: from the cache or the hub, a folder of the release, or a file.

    Args:
        weights: nothing, the folder with the release's checkpoints, or a file that :func:`fetch` or
            an earlier load converted.
        part: build and read one half of the model alone.

    Raises:
        WeightsError: they are missing, damaged or of another model.
    """
    config = config or MuCodecConfig()
    if weights is None:
        file = fetch(config=config)
    elif weights.is_dir():
        file = convert_folder(weights, config=config)
    elif weights.is_file():
        memory = _Memory(cache_folder() / "mucodec")
        file = WeightsFile(weights, memory.digest(weights))
        memory.save()
    else:
        raise WeightsError(
            f"there is no {weights}; give the folder with the release's three checkpoints, or a "
            "file converted from them"
        )
    return LoadedModel(_build(file.path, config, part), "mucodec", file.digest)


@torch.no_grad()
def _build(path: Path, config: MuCodecConfig, part: Part | None) -> MuCodecModel:
    """A model with the tensors of a converted file, on the CPU."""
    with torch.device("meta"):
        model = MuCodecModel(config, part)
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("music350", "{}"))
            if card.get("format") != FORMAT:
                raise WeightsError(
                    f"{path} was not converted from the MuCodec release by this program; give the "
                    "folder of the release, or run `python -m codec fetch mucodec`"
                )
            for name, value in model.state_dict().items():
                shape = list(file.get_slice(name).get_shape())
                if shape != list(value.shape):
                    raise WeightsError(
                        f"{path} holds a MuCodec of other sizes ({name} is {shape}, not "
                        f"{list(value.shape)}); convert the release's files again"
                    )
            model.to_empty(device="cpu")
            for name, value in model.state_dict().items():
                value.copy_(file.get_tensor(name))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is no readable safetensors file ({error}); delete it and convert the "
            "release's files again"
        ) from error
    model.restore_constants()
    return model
