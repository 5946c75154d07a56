"""The station's page plays: end to end, in Chromium and in Firefox."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import codec
from streaming.files.muc.messages import StreamHeader
from streaming.files.muc.writer import MucEncoder
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.firefox import Firefox, firefox, pulse  # noqa: F401
from tests.support.player_graphs import graphs  # noqa: F401
from tests.support.programs import Programs, Running, programs  # noqa: F401

TOKENS = 3000


def write_music(path: Path) -> None:
    """Two minutes of tokens that change slowly, as those of music do."""
    identity = codec.load("nano")
    at = np.arange(TOKENS)
    tokens = (8192 + 8000 * np.sin(at / 40) * np.sin(at / 3)).astype(np.int64)
    file = MucEncoder(StreamHeader("nano", identity.weights, identity.digest, 5))
    content = file.title("Slow waves") + file.tokens(tokens) + file.finish(TOKENS * 1920)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def station(programs: Programs, graphs: Path) -> Iterator[str]:  # noqa: F811
    """Address of the page of a station that plays a file."""
    music = programs.folder / "waves.muc"
    write_music(music)
    server = programs.start("station", "server.py", music, "--loop", "--port", "0")
    server.until(lambda: "listening on" in server.log)
    yield page_of(server)
    assert server.interrupt() == 0


def page_of(server: Running) -> str:
    return re.findall(r"listening on ws://(\S+)", server.log)[0].join(("http://", "/"))


class Player:
    """The player of a page that is open in a browser."""

    def __init__(self, page: Browser | Firefox) -> None:
        self.page = page
        self.until = page.until

    def open(self, url: str) -> None:
        self.page.open(url)
        self.until(lambda: self.page.text("#state") == "live")
        self.until(lambda: self.page.value("return !document.querySelector('#player').hidden"))

    def press(self, selector: str) -> None:
        if isinstance(self.page, Firefox):
            self.page.click(selector)
        else:
            self.page.driver.find_element("css selector", selector).click()

    def figure(self, name: str) -> float:
        said = self.page.value(f"return document.querySelector('#play-state').dataset.{name}")
        return float(said or "nan")

    @property
    def state(self) -> str:
        return self.page.text("#play-state")

    def hear(self) -> None:
        """Wait until there has been sound from now on."""
        before = self.figure("sounding")
        self.until(lambda: self.figure("sounding") > (0 if math.isnan(before) else before))


@pytest.fixture(params=["chromium", "firefox"])
def player(request: pytest.FixtureRequest) -> Player:
    name = "browser" if request.param == "chromium" else "firefox"
    return Player(request.getfixturevalue(name))


def test_the_page_plays_and_moves(player, station):
    page = player.page
    player.open(station)
    assert re.search(r"fetches \d+\.\d MB, once", page.text("#play-note"))
    requests = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert not [name for name in page.value(requests) if "onnx" in name or "ort" in name]
    player.press("#play")
    player.hear()
    assert page.text("#title") == "Slow waves"
    assert page.text("#lost") == "0"
    assert page.text("#state") == "live"
    before = page.text("#received")
    player.until(lambda: page.text("#received") != before)  # the picture goes on
    player.until(lambda: player.figure("token") > 300)  # there is something to go back to
    place = player.figure("token")
    player.press("[data-move='-10']")
    player.until(lambda: player.figure("token") < place)
    player.hear()
    player.until(lambda: player.state == "playing, from the past")
    player.press("#live")
    player.until(lambda: player.state == "playing")
    assert page.text("#lost") == "0"
    player.press("#play")
    player.until(lambda: player.state == "")
    player.until(lambda: page.text("#state") == "live")
    assert page.complaints() == []
