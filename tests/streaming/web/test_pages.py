"""Both pages in a browser: they follow the stream, obey, fit the window and load nothing else."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from codec.base import DecoderWindow
from streaming.stream.hub import Hub
from streaming.support.forwarded import Proxies
from streaming.support.guard import AuthTokens, Limits
from streaming.support.stats import LoopStall
from streaming.transports.websocket.server import WebSocketServer
from streaming.web.site import Site
from streaming.web.status import SenderStatus
from streaming.wire.messages import StreamInfo
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.programs import Programs, Running, programs  # noqa: F401

SECRET = "correct horse"


class Radio:
    """A sender on a thread of its own that needs no codec: its tokens are made up."""

    def __init__(
        self, *secrets: str, proxies: Sequence[str] = (), limits: Limits | None = None
    ) -> None:
        self.url = ""
        self.port = 0
        self._proxies = Proxies(proxies)
        self._limits = limits
        self.hub = Hub(StreamInfo("nano", "nano-3", "a" * 64, 0, "s1", 48))
        self._secrets = secrets
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Radio:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def tokens(self, count: int) -> np.ndarray:
        """Tokens that change slowly, as those of music do."""
        at = np.arange(self.hub.next_token, self.hub.next_token + count)
        return (8192 + 8000 * np.sin(at / 40) * np.sin(at / 3)).astype(np.int64)

    async def _run(self) -> None:
        hub = self.hub
        hub.set_title("An evening of tests", 0, time.monotonic())
        for _ in range(35):
            hub.publish(self.tokens(48), time.monotonic(), 0.3)
        auth = AuthTokens(self._secrets)
        self.server = WebSocketServer(
            hub,
            "127.0.0.1",
            0,
            auth=auth,
            origins=["https://radio.example"],
            proxies=self._proxies,
            limits=self._limits,
        )
        async with self.server as server:
            window = DecoderWindow(context=128, hop=24, lookahead=8)
            status = SenderStatus(hub, server.gate, LoopStall(), None, window)
            server.site = Site(status, auth, server.names)
            self.url = server.url.replace("ws://", "http://") + "/"
            self.port = server.port
            self._ready.set()
            while not self._stop.is_set():
                await asyncio.sleep(0.2)
                hub.publish(self.tokens(5), time.monotonic(), 0.3)


@pytest.fixture(scope="module")
def radio() -> Iterator[Radio]:
    with Radio() as running:
        yield running


def picture(browser: Browser, selector: str) -> set[tuple[int, ...]]:  # noqa: F811
    """The colours of a canvas, at a few thousand places."""
    pixels = browser.value(
        f"const canvas = document.querySelector('{selector}');"
        "return Array.from(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data)"
    )
    return {tuple(pixels[at : at + 4]) for at in range(0, len(pixels), 4 * 97)}


# The sender's page


def test_the_senders_page_shows_what_is_playing_and_follows_it(browser, radio):  # noqa: F811
    browser.show()
    browser.open(radio.url)
    browser.until(lambda: browser.text("#state") == "live")
    assert browser.text("#title") == "An evening of tests"
    assert browser.driver.title == "An evening of tests – 350 bit/s"
    browser.until(lambda: len(picture(browser, "#tokens")) > 50)
    browser.until(lambda: browser.text("#listeners") == "1")
    assert "nano-3" in browser.text("#about")
    assert browser.text("#latency-sum") == "3.68 s"
    assert browser.text("#command") == f"python client.py ws://{radio.url[7:-1]} --play"
    tokens = browser.driver.find_element(By.ID, "tokens")
    described = re.compile(r"1500 tokens of 60 s, \d+ of them different")
    browser.until(lambda: described.fullmatch(tokens.get_attribute("aria-label") or ""))
    before = browser.text("#received")
    browser.until(lambda: browser.text("#received") != before)
    assert browser.complaints() == []


def test_tokens_are_unpacked_in_the_browser_as_they_were_packed(browser, radio):  # noqa: F811
    from streaming.wire.messages import Tokens

    browser.open(radio.url)
    for count in (1, 4, 48, 1024):
        tokens = np.random.default_rng(count).integers(0, 16384, count)
        message = list(Tokens(2**32 - 2000, tokens).encode())
        first, unpacked = browser.driver.execute_async_script(
            "const [bytes, done] = arguments;"
            "import('/stream.js').then(({ decodeTokens }) => {"
            "  const { first, tokens } = decodeTokens(new Uint8Array(bytes).buffer);"
            "  done([first, Array.from(tokens)]);"
            "});",
            message,
        )
        assert first == 2**32 - 2000
        assert unpacked == tokens.tolist()


def test_bit_rates_stand_on_a_logarithmic_scale(browser, radio):  # noqa: F811
    browser.show()
    browser.open(radio.url)
    browser.until(lambda: browser.text("#latency-sum") != "–")
    rows = browser.value(
        "return Array.from(document.querySelectorAll('#rates tbody tr:not([aria-hidden])')).map("
        "(row) => [row.children[0].textContent, row.children[1].textContent,"
        " parseFloat(row.querySelector('.track span').style.width)])"
    )
    widths = {name: width for name, _, width in rows}
    assert widths["PCM, 16 bit"] == pytest.approx(20 * (math.log10(1_536_000) - 2), abs=0.1)
    assert widths["Opus, lowest"] == pytest.approx(20 * (math.log10(6000) - 2), abs=0.1)
    assert widths["this stream"] < widths["with headers"] < widths["Opus, lowest"]
    assert {name: rate for name, rate, _ in rows}["PCM, 16 bit"] == "1.54 Mbit/s"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_senders_page_fits_every_window_and_follows_the_scheme(browser, radio, scheme):  # noqa: F811
    browser.show(scheme, 320)
    browser.open(radio.url)
    browser.until(lambda: browser.text("#state") == "live")
    assert browser.fits()
    browser.show(scheme, 1200)
    assert browser.fits()
    ground = browser.value("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 384) == (scheme == "light")


def test_the_senders_page_can_be_used_by_keyboard(browser, radio):  # noqa: F811
    browser.show()
    browser.open(radio.url)
    browser.until(lambda: browser.text("#state") == "live")
    reached = []
    for _ in range(4):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            browser.value(
                "const on = document.activeElement; return on.className || on.id || on.tagName"
            )
        )
    assert reached[:3] == ["skip", "PRE", "copy"]
    browser.driver.find_element(By.ID, "copy").send_keys(Keys.ENTER)
    browser.until(lambda: "cop" in browser.text("#copied"))


def test_every_picture_and_control_has_a_name_for_screen_readers(browser, radio):  # noqa: F811
    browser.open(radio.url)
    browser.until(lambda: browser.text("#state") == "live")
    unnamed = browser.value(UNNAMED)
    assert unnamed == []


UNNAMED = (
    "return Array.from(document.querySelectorAll('canvas, button, input, section'))"
    ".filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')"
    " || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"
)


def test_a_page_without_the_access_token_asks_for_it(browser):  # noqa: F811
    with Radio(SECRET) as radio:
        browser.show()
        browser.open(radio.url)
        field = browser.driver.find_element(By.ID, "access-token")
        browser.until(field.is_displayed)
        assert browser.text("#state") == "not let in"
        assert browser.text("#listeners") == "–"
        field.send_keys("wrong horse", Keys.ENTER)
        browser.until(lambda: radio.hub.drops["auth"] >= 2)
        browser.until(lambda: browser.text("#state") == "not let in")
        field.clear()
        field.send_keys(SECRET, Keys.ENTER)
        browser.until(lambda: browser.text("#state") == "live")
        assert not field.is_displayed()
        browser.until(lambda: browser.text("#listeners") == "1")
        assert browser.text("#command").startswith("MUSIC350_AUTH_TOKEN=… python client.py")
        assert SECRET not in browser.driver.current_url


def test_a_page_says_that_the_server_has_gone(browser):  # noqa: F811
    with Radio() as radio:
        browser.open(radio.url)
        browser.until(lambda: browser.text("#state") == "live")
    browser.until(lambda: "no connection" in browser.text("#state"))


def test_a_page_that_was_left_is_no_listener_any_more(browser, radio):  # noqa: F811
    browser.open(radio.url)
    browser.until(lambda: radio.hub.listeners == 1)
    browser.open("about:blank")
    browser.until(lambda: radio.hub.listeners == 0)
    browser.driver.back()
    browser.until(lambda: browser.text("#state") == "live")
    browser.until(lambda: radio.hub.listeners == 1)


# The listener's page


@pytest.fixture(scope="module")
def listener(programs: Programs) -> Iterator[tuple[Running, str]]:  # noqa: F811
    """A listener without a sound card, to a sender of slow chords; the codec of the tests."""
    song = programs.folder / "chords.wav"
    write_chords(song)
    server = programs.start(
        *("sender", "-m", "tests.support.fake_server", song, "--loop", "--port", "0"),
        *("--preset", "low-latency"),
    )
    server.until(lambda: "listening on" in server.log)
    url = re.findall(r"listening on (ws://\S+)", server.log)[0]
    client = programs.start("page", "-m", "tests.support.fake_client", url, "--web", "0")
    client.until(lambda: "in a browser" in client.log)
    yield client, re.findall(r"in a browser: (http://\S+)", client.log)[0]
    assert client.interrupt() == 0
    server.interrupt()


def write_chords(path: Path) -> None:
    at = np.arange(48_000 * 60) / 48_000
    loud = 0.25 * (1 + np.sin(2 * np.pi * at / 3))
    soundfile.write(path, np.stack([loud * np.sin(2 * np.pi * 220 * at)] * 2, 1), 48_000)


def seconds(text: str) -> float:
    return float(text.split()[0].replace("–", "nan"))


def test_the_listeners_page_shows_what_is_heard(browser, listener):  # noqa: F811
    browser.show()
    browser.open(listener[1])
    browser.until(lambda: browser.text("#title") == "chords")
    browser.until(lambda: seconds(browser.text("#buffer")) > 0)
    browser.until(lambda: len(picture(browser, "#spectrogram")) > 20)
    assert browser.text("#lost") == "0"
    assert browser.value(UNNAMED) == []
    assert browser.complaints() == []


def test_sound_is_heard_in_the_browser_after_a_click(browser, listener):  # noqa: F811
    browser.open(listener[1])
    button = browser.driver.find_element(By.ID, "sound")
    browser.until(lambda: browser.text("#title") == "chords")
    button.click()
    browser.until(lambda: browser.text("#sound-state").startswith("playing here"))
    assert button.get_attribute("aria-pressed") == "true"
    heard = "return Number(document.querySelector('#sound-state').dataset.peak)"
    browser.until(lambda: browser.value(heard) > 0.05)
    waiting = "return Number(document.querySelector('#sound-state').dataset.waiting)"
    assert 0 <= browser.value(waiting) < 4
    button.click()
    browser.until(lambda: browser.text("#sound-state") == "")
    assert button.get_attribute("aria-pressed") == "false"
    assert browser.complaints() == []


def test_the_page_goes_back_in_the_stream_and_to_the_present_again(browser, listener):  # noqa: F811
    browser.open(listener[1])
    browser.until(lambda: browser.text("#latency") != "–")
    browser.until(lambda: seconds(browser.text("#latency")) < 60)
    there_is_a_past_s = time.monotonic() + 15  # nobody goes back to before the stream's beginning
    browser.until(lambda: time.monotonic() > there_is_a_past_s)
    before = seconds(browser.text("#latency"))
    browser.driver.find_element(By.CSS_SELECTOR, "[data-seek='-10']").click()
    browser.until(lambda: seconds(browser.text("#latency")) > before + 5)
    browser.driver.find_element(By.ID, "live").click()
    browser.until(lambda: seconds(browser.text("#latency")) < before + 5)


def test_the_volume_is_set_by_keyboard_and_kept_by_the_listener(browser, listener):  # noqa: F811
    browser.open(listener[1])
    slider = browser.driver.find_element(By.ID, "volume")
    browser.until(lambda: browser.text("#title") == "chords")
    slider.send_keys(Keys.ARROW_LEFT * 10)
    browser.until(lambda: browser.text("#volume-shown") == "90 %")
    browser.driver.refresh()
    browser.until(lambda: browser.text("#volume-shown") == "90 %")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_listeners_page_fits_every_window(browser, listener, scheme):  # noqa: F811
    browser.show(scheme, 320)
    browser.open(listener[1])
    browser.until(lambda: browser.text("#title") == "chords")
    assert browser.fits()
