"""A page without a server plays recordings, as long as they are, and files dropped on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

import codec
from streaming.cli.muc import main
from streaming.errors import SettingsError
from streaming.files.muc.messages import StreamHeader
from streaming.files.muc.writer import MucEncoder
from streaming.web import player
from streaming.web.export import export_page
from tests.streaming.web.test_player_page import Player
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.plain_host import plain_host

pytestmark = pytest.mark.system

SAMPLES = 150 * 1920 - 700


def write_song(path: Path) -> None:
    nano = codec.load("nano")
    at = np.arange(150)
    tokens = (8192 + 8000 * np.sin(at / 40) * np.sin(at / 3)).astype(np.int64)
    file = MucEncoder(StreamHeader("nano", nano.weights, nano.digest, seed=5))
    path.write_bytes(file.title("Short waves") + file.tokens(tokens) + file.finish(SAMPLES))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an exported page, served by nothing but a plain file server."""
    folder = tmp_path_factory.mktemp("page")
    song = folder / "song.muc"
    write_song(song)
    assert main(["export-page", str(folder / "out"), str(song)]) == 0
    with plain_host(folder / "out") as url:
        yield url


PAINTED = """
const canvas = document.querySelector("#overview"), { width, height } = canvas;
const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
return data.filter((value, at) => at % 4 === 3 && value).length / (width * height);
"""
"""The share of the overview that is not empty."""


def place(browser: Browser) -> float:  # noqa: F811
    return float(browser.value("return document.querySelector('#place').value"))


def test_an_exported_page_plays_seeks_and_ends(browser, page):  # noqa: F811
    player = Player(browser)
    browser.show("dark", 360)
    browser.open(page)
    player.until(lambda: browser.value("return document.querySelectorAll('#recordings li').length"))
    assert browser.text("#recordings") == "Short waves, 0:05"
    player.press("#recordings button")
    player.hear()
    assert browser.text("#title") == "Short waves"
    assert browser.value("return document.querySelector('#place').dataset.samples") == str(SAMPLES)
    player.until(lambda: place(browser) > 4)
    slider = browser.driver.find_element("id", "place")
    left = -slider.size["width"] // 3  # of the middle: a sixth of the whole
    ActionChains(browser.driver).move_to_element_with_offset(slider, left, 0).click().perform()
    player.until(lambda: 0.9 < place(browser) < 2)
    player.hear()
    slider.send_keys(Keys.HOME)
    player.until(lambda: place(browser) < 0.9)
    assert slider.get_attribute("aria-valuetext") == "0:00 of 0:05"
    player.hear()
    slider.send_keys(Keys.ARROW_RIGHT)
    player.until(lambda: place(browser) > 4.9)
    assert browser.value(PAINTED) > 0.1
    player.until(lambda: place(browser) > 5.9)
    player.until(lambda: player.state == "played to the end")
    assert place(browser) == pytest.approx(SAMPLES / 48_000, abs=0.05)
    assert browser.fits()
    assert browser.complaints() == []
    browser.show()


def test_a_file_that_is_dropped_plays(browser, page, tmp_path):  # noqa: F811
    write_song(tmp_path / "mine.muc")
    player = Player(browser)
    browser.open(page)
    player.until(lambda: browser.value("return document.querySelectorAll('#recordings li').length"))
    browser.driver.find_element("id", "file").send_keys(str(tmp_path / "mine.muc"))
    player.until(lambda: player.state == "mine.muc is ready; press Play")
    player.press("#play")
    player.hear()
    (tmp_path / "other.muc").write_bytes(b"no such thing")
    browser.driver.find_element("id", "file").send_keys(str(tmp_path / "other.muc"))
    player.until(lambda: "is no .muc file" in player.state)


def test_two_recordings_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_song(tmp_path / folder / "song.muc")
    with pytest.raises(SettingsError, match=r"song\.muc"):
        export_page(tmp_path / "out", [tmp_path / "one/song.muc", tmp_path / "two/song.muc"])


def test_what_is_no_recording_is_named(tmp_path, capsys):
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    assert main(["export-page", str(tmp_path / "out"), str(tmp_path / "song.wav")]) == 2
    assert "song.wav is no .muc file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_manifest_of_an_exported_page_names_files_that_are_there(tmp_path):
    export_page(tmp_path, [])
    listed = json.loads((tmp_path / "player.json").read_text())
    assert [file["name"] for file in listed] == [file["name"] for file in player.manifest()]
    assert all((tmp_path / file["url"]).is_file() for file in listed)
    assert json.loads((tmp_path / "recordings.json").read_text()) == []
