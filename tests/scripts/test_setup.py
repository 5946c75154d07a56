"""The set-up script, run in a checkout of its own among pretended tools; and its papers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import ROOT


class Checkout:
    """A folder with the script, a pretended `.venv` and a PATH of pretended tools first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pip_log = folder / "pip.log"
        (folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
        shutil.copy(ROOT / "pyproject.toml", folder)
        self.tool("apt-get", "exit 100")
        self.tool("ldconfig", "true")

    def tool(self, name: str, body: str) -> None:
        self._script(self.folder / "bin" / name, body)

    def venv(self, pip_result: int = 0) -> None:
        body = f'case "$*" in *"pip install"*) echo "$*" >>{self.pip_log}; exit {pip_result};; esac'
        self._script(self.folder / ".venv" / "bin" / "python", body)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [self.folder / "scripts" / "setup.sh", *arguments],
            env={"PATH": path, "HOME": str(self.folder), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def pip_runs(self) -> list[str]:
        return self.pip_log.read_text().splitlines() if self.pip_log.exists() else []

    def _script(self, path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_installs_once_and_finds_its_stamp_the_second_time(checkout):
    checkout.venv()
    assert checkout.run("demo").returncode == 0
    assert checkout.run("demo").returncode == 0
    (installed,) = checkout.pip_runs()
    assert ".[demo,play]" in installed


def test_the_tests_get_what_streaming_through_a_broker_needs(checkout):
    checkout.venv()
    result = checkout.run("test")
    assert result.returncode == 0
    (installed,) = checkout.pip_runs()
    assert re.search(r"\.\[(\w+,)*mqtt[,\]]", installed)
    probed = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/bin") is not None
    assert probed or "mosquitto" in result.stderr


def test_changed_metadata_installs_again(checkout):
    checkout.venv()
    checkout.run("demo")
    with (checkout.folder / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    checkout.run("demo")
    assert len(checkout.pip_runs()) == 2


def test_torch_comes_from_the_index_named_for_it(checkout):
    checkout.venv()
    assert checkout.run("listen", TORCH_INDEX="https://wheels.example/cpu").returncode == 0
    torch, _ = checkout.pip_runs()
    assert "--index-url https://wheels.example/cpu torch" in torch


def test_the_demonstration_installs_no_torch(checkout):
    checkout.venv()
    assert checkout.run("demo", TORCH_INDEX="https://wheels.example/cpu").returncode == 0
    assert len(checkout.pip_runs()) == 1


def test_a_system_package_that_cannot_be_installed_is_named_and_is_no_obstacle(checkout):
    checkout.venv()
    result = checkout.run("demo")
    assert result.returncode == 0
    assert "sudo apt-get install libportaudio2" in result.stderr


def test_failing_pip_ends_with_one_sentence_and_leaves_no_stamp(checkout):
    checkout.venv(pip_result=1)
    result = checkout.run("demo")
    assert result.returncode == 2
    assert "pip could not install" in result.stderr
    assert not list((checkout.folder / ".venv").glob(".stamp-*"))


def test_unknown_profile_is_refused(checkout):
    result = checkout.run("everything")
    assert result.returncode == 2
    assert "demo|listen|test|train" in result.stderr


def test_unsuitable_interpreter_is_refused(checkout):
    checkout.tool("old-python", "exit 1")
    result = checkout.run("demo", PYTHON="old-python")
    assert result.returncode == 2
    assert "PYTHON=old-python" in result.stderr
    assert not (checkout.folder / ".venv").exists()


def test_python_without_ensurepip_is_said_to_lack_it(checkout):
    checkout.tool("bare-python", 'case "$*" in *ensurepip*) exit 1;; esac')
    result = checkout.run("demo", PYTHON="bare-python")
    assert result.returncode == 2
    assert "sudo apt-get install python3-venv" in result.stderr


def test_every_dependency_has_its_reason_written_down():
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = metadata[metadata.index("dependencies = [") : metadata.index("[tool.")]
    named = set(re.findall(r'"([A-Za-z0-9_-]+)[<>=]', project))
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert {"torch", "matplotlib", "pytest"} <= named
    assert [name for name in sorted(named) if f"`{name}`" not in reasons] == []
