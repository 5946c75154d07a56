"""`make site`: excerpts to switch between while they play, the player and the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import soundfile

from benchmarks import opus
from codec.constants import SAMPLE_RATE
from scripts import site
from streaming.files.muc import MucReader
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.plain_host import plain_host

pytestmark = pytest.mark.system

SECONDS = 3
SWITCHED = """
const [from, to, done] = arguments;
const players = document.querySelector(".recording").querySelectorAll("audio");
players[from].addEventListener("timeupdate", function listen() {
  if (players[from].currentTime < 0.3) return;
  players[from].removeEventListener("timeupdate", listen);
  const left = players[from].currentTime;
  players[to].addEventListener("playing", () => done({
    left, joined: players[to].currentTime,
    paused: players[from].paused,
    shown: [...document.querySelectorAll(".playing audio")].map((player) => player === players[to]),
  }), { once: true });
  players[to].play();
});
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of short excerpts, with a page in place of the documentation."""
    if said := opus.problem():
        pytest.skip(said)
    docs = tmp_path_factory.mktemp("docs")
    (docs / "index.html").write_text("<!doctype html><title>Documentation</title>")
    (docs / ".buildinfo").write_text("of the builder alone")
    out = tmp_path_factory.mktemp("out") / "site"
    site.main([f"--out={out}", f"--docs={docs}", f"--seconds={SECONDS}"])
    return out


@pytest.fixture(scope="module")
def index(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_each_excerpt_is_there_in_three_versions_of_one_length(folder: Path, index: str) -> None:
    sounds = re.findall(r'<audio [^>]*src="([^"]+)"', index)
    kinds = [name.split("-", 1)[1].removesuffix(".flac") for name in sounds[:3]]
    assert [kind.removeprefix("demonstration-track-") for kind in kinds] == [
        "original",
        "decoded",
        "opus-6k",
    ]
    assert len(sounds) == 3 * len(site.EXCERPTS) == 12
    assert {soundfile.info(folder / name).frames for name in sounds} == {SECONDS * SAMPLE_RATE}
    rates = re.findall(r'"rate">([^<]+)<', index)
    assert rates[:2] == ["1536 kbit/s", "350 bit/s"]
    assert all(4 < float(rate.removesuffix(" kbit/s")) < 9 for rate in rates[2::3])


def test_everything_that_the_page_names_is_there_and_nothing_is_from_elsewhere(
    folder: Path, index: str
) -> None:
    named = [name for name in re.findall(r'(?:src|href)="([^"]+)"', index) if name[0] != "#"]
    assert len(named) == 3 + 2 * 12
    assert all((folder / name).is_file() for name in named)
    assert not (folder / "docs" / ".buildinfo").exists()


def test_the_player_has_the_excerpts(folder: Path) -> None:
    infos = [MucReader(path).describe() for path in sorted(folder.glob("player/recordings/*.muc"))]
    assert [info.titles[0].title for info in infos] == list(site.EXCERPTS)
    assert {info.seconds for info in infos} == {SECONDS}


def test_versions_are_switched_between_while_they_play(
    folder: Path,
    browser: Browser,  # noqa: F811
) -> None:
    with plain_host(folder) as url:
        for scheme, width in (("light", 1100), ("dark", 390)):
            browser.show(scheme, width)
            browser.open(url)
            browser.driver.find_element("css selector", "audio").send_keys("1")
            for way in ((0, 1), (1, 2), (2, 0)):
                switched: dict[str, Any] = browser.driver.execute_async_script(SWITCHED, *way)
                assert switched["joined"] == pytest.approx(switched["left"], abs=0.25)
                assert switched["left"] >= 0.3
                assert switched["paused"]
                assert switched["shown"] == [True]
            assert browser.fits()
            assert browser.complaints() == []
    browser.show()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--docs=none"], "there is no documentation in none; run: make docs"),
        (["--seconds=0.5"], "--seconds must be at least 1"),
    ],
)
def test_what_cannot_be_built_ends_with_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        site.main([*arguments, f"--out={tmp_path / 'out'}"])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
