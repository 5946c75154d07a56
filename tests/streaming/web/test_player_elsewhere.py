"""Stations of other kinds play in the browser: files from another origin, none, coded packets."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.sync.client import connect

from streaming.web.export import export_page
from streaming.wire.messages import CODED_KIND, Join
from tests.streaming.web.test_player_page import (  # noqa: F401
    Player,
    page_of,
    player,
    waves,
    write_music,
)
from tests.support.browser import browser  # noqa: F401
from tests.support.firefox import firefox, pulse  # noqa: F401
from tests.support.plain_host import plain_host
from tests.support.programs import Programs, Running, programs  # noqa: F401

pytestmark = pytest.mark.system


def start(
    programs: Programs,  # noqa: F811
    name: str,
    *options: object,
    tokens: NDArray[np.int64] | None = None,
) -> Running:
    """A station that plays a file."""
    music = programs.folder / f"{name}.muc"
    write_music(music, tokens)
    server = programs.start(name, "server.py", music, "--loop", "--port", "0", *options)
    server.until(lambda: "listening on" in server.log)
    return server


def assert_it_plays_files_of(origin: str, player: Player, page: str) -> None:  # noqa: F811
    """The large ones come from ``origin``, the scripts from the page's own."""
    player.open(page)
    with urlopen(f"{page}player.json") as answer:
        listed = json.load(answer)
    elsewhere = [file["name"] for file in listed if file["url"].startswith(f"{origin}/player/")]
    here = [file["name"] for file in listed if file["url"].startswith("player/")]
    assert {Path(name).suffix for name in elsewhere} == {".onnx", ".safetensors", ".wasm"}
    assert {Path(name).suffix for name in here} == {".js", ".mjs"}
    with player.in_time():
        player.press("#play")
        player.hear()
        assert player.page.text("#lost") == "0"
    player.press("#play")
    assert player.page.complaints() == []


def test_the_page_plays_with_the_files_of_another_station(player, programs):  # noqa: F811
    name = type(player.page).__name__
    files = start(programs, f"files-{name}")
    origin = page_of(files).removesuffix("/")
    server = start(programs, f"thin-{name}", "--web-player", origin)
    assert_it_plays_files_of(origin, player, page_of(server))
    assert files.interrupt() == server.interrupt() == 0


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export_page(tmp_path, [])
    return tmp_path


def test_the_page_plays_with_the_files_of_an_exported_page(browser, programs, exported):  # noqa: F811
    with plain_host(exported, {"Access-Control-Allow-Origin": "*"}) as url:
        server = start(programs, "exported", "--web-player", url)
        assert_it_plays_files_of(url.removesuffix("/"), Player(browser), page_of(server))
    assert server.interrupt() == 0


def test_files_that_this_page_may_not_read_are_named(browser, programs, exported):  # noqa: F811
    listener = Player(browser)
    with plain_host(exported) as url:
        server = start(programs, "closed", "--web-player", url)
        listener.open(page_of(server))
        listener.press("#play")
        origin = url.removesuffix("/")
        listener.until(lambda: f"cannot be loaded from {origin}; try again." in listener.state)
        assert browser.text("#play") == "Play"
    assert server.interrupt() == 0


def test_a_page_without_the_player_shows_the_stream(browser, programs):  # noqa: F811
    server = start(programs, "without", "--web-player", "off")
    browser.open(page_of(server))
    browser.until(lambda: browser.text("#state") == "live")
    browser.until(lambda: browser.text("#received") != "–")
    assert browser.value("return document.querySelector('#player').hidden")
    assert "client.py ws://" in browser.text("#command")
    assert browser.complaints() == []
    with urlopen(page_of(server)) as answer:
        assert "wasm" not in answer.headers["Content-Security-Policy"]
    with urlopen(f"{page_of(server)}player.json") as answer:
        assert answer.read() == b"[]"
    assert server.interrupt() == 0


def test_the_page_plays_a_stream_that_others_get_coded(player, programs):  # noqa: F811
    """Its join does not say that it takes coded packets."""
    still = np.arange(3000) // 240 % 2 == 1  # easily said in fewer bits, unlike the waves
    name = f"coded-{type(player.page).__name__}"
    server = start(programs, name, "--entropy-coding", tokens=np.where(still, 8192, waves()))
    page = page_of(server)
    with connect(f"ws://{urlsplit(page).netloc}", proxy=None) as other:
        other.send(Join(kinds=(CODED_KIND,)).encode())
        messages = (other.recv(timeout=120) for _ in range(30))
        assert any(message[0] == CODED_KIND for message in messages)
    player.open(page)
    with player.in_time():
        player.press("#play")
        player.hear()
        place = player.place()
        player.until(lambda: player.figure("token") > place + 300)
        assert player.page.text("#lost") == "0"
    player.press("#play")
    assert server.interrupt() == 0
