"""Renews the copy of onnxruntime-web that the station's page plays with.

    python -m scripts.onnxruntime_web 1.30.0

needs npm and pip, whose registries it asks. The files stay as they are published, but compressed;
their digests go to ``onnxruntime-web.json`` beside them. The npm package holds no licence texts, so
these come from the Python package of the same version.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "streaming/web/static/vendor"

# WebAssembly alone, neither WebGPU nor WebNN; the bundle holds the loader of the other file.
_FILES: Final = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_TEXTS: Final = ("LICENSE", "ThirdPartyNotices.txt")


def renew(version: str) -> None:
    """Fetch a version and put its files in the place of the ones that are there."""
    FOLDER.mkdir(exist_ok=True)
    listed = []
    with tempfile.TemporaryDirectory() as folder:
        _run("npm", "pack", "--silent", f"onnxruntime-web@{version}", "--pack-destination", folder)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            for name in _FILES:
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None
                content = member.read()
                packed = gzip.compress(content, mtime=0)
                (FOLDER / f"{name}.gz").write_bytes(packed)
                digest = hashlib.sha256(content).hexdigest()
                listed.append({"name": name, "sha256": digest, "bytes": len(content)})
        _run("pip", "download", "--quiet", "--no-deps", "--dest", folder, f"onnxruntime=={version}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for name in _TEXTS:
                (FOLDER / name).write_bytes(wheel.read(f"onnxruntime/{name}"))
    fields = {"package": "onnxruntime-web", "version": version, "files": listed}
    (FOLDER / "onnxruntime-web.json").write_text(json.dumps(fields, indent=2) + "\n")


def _run(*command: str) -> None:
    runs = [sys.executable, "-m", *command] if command[0] == "pip" else list(command)
    subprocess.run(runs, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 1.30.0")
    renew(parser.parse_args().version)
