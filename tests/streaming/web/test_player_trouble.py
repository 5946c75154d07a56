"""The player where a tab stands still, a connection is cut, or a device is too slow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from streaming.web.export import export_page
from tests.streaming.web.test_player_export import write_song
from tests.streaming.web.test_player_page import Player, player, station  # noqa: F401
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.fault_proxy import FaultProxy
from tests.support.firefox import firefox, pulse  # noqa: F401
from tests.support.plain_host import plain_host
from tests.support.programs import Programs, programs  # noqa: F401

pytestmark = pytest.mark.system

NEAR_S = 8.5
"""More than is in reserve at the live edge, and less than what is missed here."""


@contextmanager
def proxied(port: int) -> Iterator[tuple[FaultProxy, asyncio.AbstractEventLoop]]:
    """A proxy, and the loop that it runs on, on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = FaultProxy(port)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
    try:
        yield proxy, loop
    finally:
        ending = proxy.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(ending, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def reserve_s(player: Player) -> float:  # noqa: F811
    """What is in reserve; infinite while nothing is heard."""
    player.place()
    return float(player.page.text("#reserve").split()[0]) or float("inf")


def assert_it_stays_live(player: Player) -> None:  # noqa: F811
    """The sound comes back near the live edge and does not fall back again."""
    page = player.page
    player.until(lambda: page.text("#state") == "live" and reserve_s(player) < NEAR_S)
    player.hear()
    before = player.place()
    player.until(lambda: player.figure("token") > before + 250)
    player.until(lambda: reserve_s(player) < NEAR_S)
    assert page.value("return document.querySelector('#play-state').dataset.live") == "true"
    assert page.text("#lost") == "0"


def test_a_tab_that_stood_still_goes_on_live(player, station):  # noqa: F811
    player.open(station)
    with player.in_time():
        player.press("#play")
        player.hear()
        player.until(lambda: reserve_s(player) < NEAR_S)
        before = player.place()
        player.until(lambda: player.figure("token") > before + 100)
        with player.page.frozen():
            time.sleep(NEAR_S)
        assert_it_stays_live(player)
    player.press("#play")


def test_after_an_outage_longer_than_the_reserve_it_goes_on_live(browser, station):  # noqa: F811
    listener = Player(browser)
    port = urlsplit(station).port
    assert port is not None
    with proxied(port) as (proxy, loop):
        listener.open(station.replace(str(port), str(proxy.port)))
        with listener.in_time():
            listener.press("#play")
            listener.hear()
            listener.until(lambda: reserve_s(listener) < NEAR_S)
            proxy.refusing = True
            loop.call_soon_threadsafe(proxy.kill)
            listener.until(lambda: "no connection" in browser.text("#state"))
            listener.until(lambda: listener.state == "waiting for sound")
            time.sleep(NEAR_S)
            proxy.refusing = False
            assert_it_stays_live(listener)
        listener.press("#play")


SLOW_DECODER = """
import {{ Nano }} from "./nano.js";
let clock = 0;
performance.now = () => clock;
const decode = Nano.prototype.decode;
Nano.prototype.decode = function (...window) {{
  clock += {load} * 960; // milliseconds, for a window of 24 tokens
  return decode.apply(this, window);
}};
"""


@pytest.mark.parametrize(("load", "slow"), [(0.79, False), (0.81, True)])
def test_a_device_that_cannot_keep_up_is_told_so(browser, tmp_path, load, slow):  # noqa: F811
    """By the player's own clock, so that this machine may be as slow as it is."""
    write_song(tmp_path / "song.muc")
    export_page(tmp_path / "page", [tmp_path / "song.muc"])
    (worker,) = (tmp_path / "page").rglob("worker.js")
    worker.write_text(worker.read_text() + SLOW_DECODER.format(load=load))
    listener = Player(browser)
    with plain_host(tmp_path / "page") as url:
        browser.open(url)
        listener.until(lambda: browser.value("return document.querySelector('#recordings li')"))
        before = browser.text("#play-note")
        listener.press("#recordings button")
        place = "return Number(document.querySelector('#place').value)"
        listener.until(lambda: browser.value(place) > 5.9)
        said = browser.text("#play-note")
        listener.press("#play")
    if slow:
        assert said == (
            "This device is too slow: it computes 81 % of the time, and more than 80 % leaves "
            "gaps. The program needs less: python client.py song.muc --play"
        )
    else:
        assert said == before
