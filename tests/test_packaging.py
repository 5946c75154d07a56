"""What is installed where this is no checkout: the wheel, its programs, the service's unit."""

from __future__ import annotations

import configparser
import email
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from codec.nano.onnx_codec import GRAPHS
from streaming.cli import server
from streaming.cli.configuration import CONFIG_VARIABLE
from tests import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    tracked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(tracked, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named 'setuptools'" in built.stderr or "BackendUnavailable" in built.stderr:
        pytest.skip("no setuptools to build with")
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_weights_pages_demo_and_programs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        programs = configparser.ConfigParser()
        programs.read_string(archive.read(entry_points).decode())
    assert any(re.fullmatch(r"codec/nano/.*\.safetensors", name) for name in names)
    for page in filter(Path.is_file, (ROOT / "streaming" / "web" / "static").rglob("*")):
        assert page.relative_to(ROOT).as_posix() in names
    assert "streaming/data/demo.ogg" in names
    assert re.fullmatch(
        r"codec/nano/entropy/.*\.npz", "\n".join(n for n in names if n.endswith(".npz"))
    )
    assert not {"server.py", "client.py"} & set(names)  # others have modules of these names
    assert not any(name.startswith(("tests/", "training/", "benchmarks/")) for name in names)
    assert set(programs["console_scripts"]) == {"muc-server", "muc-client", "muc"}


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_says_that_the_weights_have_a_licence_of_their_own(wheel):
    metadata = metadata_of(wheel)
    assert metadata["License-Expression"] == "MIT AND CC-BY-SA-4.0"
    assert metadata.get_all("License-File") == ["LICENSE", "LICENSE_weights"]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licences = next(name for name in names if name.endswith("/licenses/LICENSE_weights"))
        text = archive.read(licences).decode()
    assert "codec/nano/nano-6.works.json" in names
    assert {f"codec/nano/nano-{graph}.onnx" for graph in GRAPHS} <= set(names)
    for title in ("Attribution-ShareAlike 4.0", "Attribution-NonCommercial 4.0"):
        assert f"\n{title} International\n" in text


def test_what_not_everybody_needs_is_an_extra(wheel):
    metadata = metadata_of(wheel)
    assert {"mqtt", "play", "gpu", "train", "dev"} <= set(metadata.get_all("Provides-Extra", []))
    needed = metadata.get_all("Requires-Dist", [])
    always = {re.split(r"[^\w-]", line)[0] for line in needed if "extra ==" not in line}
    assert always == {
        "numpy",
        "onnxruntime",
        "safetensors",
        "shtab",
        "soundfile",
        "soxr",
        "websockets",
    }
    play = [line for line in needed if re.search(r"extra == .play.", line)]
    assert [re.split(r"[^\w-]", line)[0] for line in play] == ["sounddevice"]


@pytest.mark.parametrize("program", ["muc-server", "muc-client", "muc"])
def test_the_programs_of_the_wheel_run(wheel, tmp_path, program):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    programs = configparser.ConfigParser()
    programs.read(next(tmp_path.glob("*.dist-info")) / "entry_points.txt")
    module, function = programs["console_scripts"][program].split(":")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = [{program!r}, '--help'];"
        f"import {module} as m; assert m.__file__.startswith({str(tmp_path)!r}); m.{function}()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("usage: ")


def test_the_unit_starts_the_server_as_its_arguments_allow(monkeypatch):
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    unit = (ROOT / "packaging" / "music350-server.service").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *arguments = shlex.split(command)
    assert Path(program).name == "muc-server"
    at = arguments.index("--config") + 1
    arguments[at] = str(ROOT / "packaging" / "music350.ini")
    parsed = server.parse_arguments(arguments)
    assert (parsed.host, parsed.port, parsed.json_log) == ("0.0.0.0", 8765, True)
    assert parsed.store == Path("%S/music350")


def test_the_example_configuration_names_only_options(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("MUSIC350_")]:
        monkeypatch.delenv(variable)
    text = (ROOT / "packaging" / "music350.ini").read_text(encoding="utf-8")
    every = re.sub(r"^# ?(?=[a-z-]+ =|    )", "", text, flags=re.MULTILINE)
    path = tmp_path / "every.ini"
    path.write_text(every, encoding="utf-8")
    parsed = server.parse_arguments(["--config", str(path)])
    assert parsed.songs == ["/srv/music"]
    assert (parsed.loop, parsed.max_listeners) == (True, 1000)
