"""The station's page plays: end to end, in Chromium and in Firefox."""

from __future__ import annotations

import base64
import contextlib
import math
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import codec
from codec.stream import StreamDecoder
from streaming.files.muc.messages import StreamHeader
from streaming.files.muc.writer import MucEncoder
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.firefox import Firefox, firefox, pulse  # noqa: F401
from tests.support.programs import Programs, Running, programs  # noqa: F401

TOKENS = 3000
_BUSY_PERCENT = 70  # of the time; the page warns of more than 80


def waves() -> NDArray[np.int64]:
    """Two minutes of tokens that change slowly, as those of music do."""
    at = np.arange(TOKENS)
    return (8192 + 8000 * np.sin(at / 40) * np.sin(at / 3)).astype(np.int64)


def write_music(path: Path, tokens: NDArray[np.int64] | None = None) -> None:
    """A file of tokens, or of waves."""
    identity = codec.load("nano")
    tokens = waves() if tokens is None else tokens
    file = MucEncoder(StreamHeader("nano", identity.weights, identity.digest, 5))
    content = file.title("Slow waves") + file.tokens(tokens) + file.finish(len(tokens) * 1920)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def station(programs: Programs) -> Iterator[str]:  # noqa: F811
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

    def until(self, happened: Callable[[], object]) -> None:
        """Wait for something, and be told what the page said if it does not come."""
        try:
            self.page.until(happened)
        except pytest.fail.Exception as failure:
            failure.msg = f"{failure.msg}; {self.page.text('#player')}"
            raise

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

    def place(self) -> float:
        """The token that is heard; waits until there is one."""
        while math.isnan(token := self.figure("token")):
            self.until(lambda: not math.isnan(self.figure("token")))
        return token

    @contextlib.contextmanager
    def in_time(self) -> Iterator[None]:
        """What fails within is no fault of ours if the browser gets too little of this machine."""
        try:
            yield
        except (AssertionError, pytest.fail.Exception):
            busy = re.match(r"\d+", self.page.text("#decoding"))
            if busy is not None and int(busy[0]) > _BUSY_PERCENT:
                pytest.skip(
                    f"this machine is too busy to decode in a browser: {busy[0]} % of a core"
                )
            raise

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
    with player.in_time():
        player.press("#play")
        player.hear()
        assert page.text("#title") == "Slow waves"
        assert page.text("#lost") == "0"
        assert page.text("#state") == "live"
        before = page.text("#received")
        player.until(lambda: page.text("#received") != before)  # the picture goes on
        player.until(lambda: player.figure("token") > 300)  # there is something to go back to
        live = "return document.querySelector('#play-state').dataset.live"
        player.press("[data-move='-10']")
        player.until(lambda: page.value(live) == "false")
        player.hear()
        player.until(lambda: float(page.text("#reserve").split()[0]) > 9)
        player.press("#live")
        player.until(lambda: page.value(live) == "true")
        player.hear()
        assert page.text("#lost") == "0"
        player.press("#play")
    player.until(lambda: player.state == "")
    player.until(lambda: page.text("#state") == "live")
    assert page.complaints() == []


KEYS = """
window.keys = {};
const set = MediaSession.prototype.setActionHandler;
MediaSession.prototype.setActionHandler = function (action, handler) {
  window.keys[action] = handler;
  return set.call(this, action, handler);
};
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  window.element = this;
  return play.call(this);
};
"""
"""What the page has browsers call when such a key is pressed, and the element that gets it keys."""


def test_the_page_obeys_media_keys_and_names_what_plays(player, station):
    page = player.page
    live = "return document.querySelector('#play-state').dataset.live"
    session = "const { metadata, playbackState } = navigator.mediaSession; return "
    with page.preloaded(KEYS):
        player.open(station)
    player.press("#play")  # a browser lets sound out after a click; from then on keys do
    with player.in_time():
        player.hear()
        player.until(lambda: page.value(f"{session} metadata?.title") == "Slow waves")
        player.until(lambda: page.value(f"{session} playbackState") == "playing")
        assert page.value("return !element.paused && element.loop && element.duration") == 10
        player.until(lambda: player.figure("token") > 150)
        page.value("keys.seekbackward({ seekOffset: 5 })")
        player.until(lambda: page.value(live) == "false")
        player.hear()
        page.value("keys.seekforward({ seekOffset: 3600 })")  # beyond what there is
        player.until(lambda: page.value(live) == "true")
        player.hear()
        page.value("keys.pause()")
        player.until(lambda: player.state == "")
        assert page.value(f"{session} playbackState") == "paused"
        assert page.value("return element.paused")
        assert page.text("#play") == "Play"
        page.value("keys.play()")
        player.hear()
        page.value("keys.stop()")
        player.until(lambda: player.state == "")
    assert page.complaints() == []


RENDER = """
const [request, done] = arguments;
(async () => {
  const manifest = await (await fetch("player.json")).json();
  const base = location.href;
  const get = (name) => import(new URL(manifest.find((file) => file.name === name).url, base));
  const [{ loadNano }, { Renderer }] = [await get("files.js"), await get("renderer.js")];
  window.nano ??= await loadNano(manifest, base);
  const renderer = new Renderer(window.nano);
  const { first, start, seed } = request;
  const hello = { seed, first_token: first, next_token: first, packet_tokens: 48, age_s: 0 };
  renderer.begin(hello, 0, start);
  for (const item of request.items) {
    renderer.put({ ...item, tokens: Uint16Array.from(item.tokens) });
  }
  renderer.finish();
  const channels = [[], []];
  for (let part; (part = await renderer.next(0)); ) {
    part.channels.forEach((sound, channel) => channels[channel].push(sound));
  }
  const bytes = new Uint8Array(await new Blob(channels.flat()).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
})().then((sound) => done({ sound }), (error) => done({ error: error.stack }));
"""


@pytest.mark.parametrize("first", [0, 25 * 86_400 * 30 + 5])
def test_the_sound_is_that_of_python(browser, station, first):  # noqa: F811
    nano = codec.load("nano")
    tokens = np.random.default_rng(first % 100).integers(0, 16384, 190)
    start, seed = first + 30, 2**53 - 1
    decoder = StreamDecoder(nano, seed=seed, first_token=first, start_token=start)
    decoder.feed(tokens)
    decoder.finish()
    expected = np.concatenate([np.asarray(block) for block in decoder], axis=1)
    browser.open(station)
    browser.driver.set_script_timeout(300)
    items = [
        {"type": "tokens", "first": first + at, "end": first + at + 38, "tokens": part.tolist()}
        for at, part in zip(range(0, 190, 38), np.split(tokens, 5), strict=True)
    ]
    request = {"first": first, "start": start, "seed": seed, "items": items}
    answer = browser.driver.execute_async_script(RENDER, request)
    assert "error" not in answer, answer["error"]
    heard = np.frombuffer(base64.b64decode(answer["sound"]), "<f4").reshape(2, -1)
    assert heard.shape == expected.shape == (2, 160 * 1920)
    noise = np.square(heard - expected).sum()
    assert 10 * np.log10(np.square(expected).sum() / noise) >= 60


def test_the_page_plays_under_a_plain_name(browser, programs):  # noqa: F811
    music = programs.folder / "plain.muc"
    write_music(music)
    server = programs.start(
        *("plain", "server.py", music, "--loop", "--port", "0"),
        *("--allow-origin", "http://radio.test"),
    )
    server.until(lambda: "listening on" in server.log)
    player = Player(browser)
    player.open(page_of(server).replace("127.0.0.1", "radio.test"))
    lacks = "return ['audioWorklet' in BaseAudioContext.prototype, 'subtle' in crypto]"
    assert browser.value(lacks) == [False, False]
    with player.in_time():
        player.press("#play")
        player.hear()
        place = player.place()
        player.until(lambda: player.figure("token") > place + 50)
        assert browser.text("#lost") == "0"
    player.press("#play")
    assert server.interrupt() == 0


def test_a_server_that_was_killed_is_heard_again_without_a_lost_token(
    browser,  # noqa: F811
    programs,  # noqa: F811
):
    music = programs.folder / "killed.muc"
    write_music(music)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ("server.py", music, "--loop", "--port", port, "--store", programs.folder / "store")
    server = programs.start("before", *command)
    server.until(lambda: "listening on" in server.log)
    player = Player(browser)
    player.open(page_of(server))
    with player.in_time():
        player.press("#play")
        player.hear()
        server.process.kill()
        server.ends()
        player.until(lambda: "no connection" in browser.text("#state"))
        time.sleep(10)
        before = player.place()
        server = programs.start("after", *command)
        player.until(lambda: browser.text("#state") == "live")
        player.until(lambda: player.figure("token") > before + 100)
        player.hear()
        assert browser.text("#lost") == "0"
    player.press("#play")
    assert server.interrupt() == 0
