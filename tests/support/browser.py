"""A browser without a screen, for tests of the pages; None of them runs if there is none.

Import the fixture in a test module: `from tests.support.browser import browser  # noqa: F401`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.support.processes import descendants, stopped

__all__ = ["Browser", "browser"]

_PATIENCE_S = 120.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """Chromium with what the tests ask of it. Attributes: `driver`, Selenium's."""

    def __init__(self, program: str, driver: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        arguments = ["headless=new", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"]
        arguments.append("host-resolver-rules=MAP radio.test 127.0.0.1")
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            arguments.append("no-sandbox")  # it refuses to be root with one
        for argument in arguments:
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(_PATIENCE_S)

    def show(self, scheme: str = "light", width: int = 1200) -> None:
        """Look at pages in a colour scheme, `light` or `dark`, and a width."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def open(self, url: str) -> None:
        """Go to a page; what the one before complained of is forgotten."""
        self.driver.get("about:blank")
        self.complaints()
        self.driver.get(url)

    @contextmanager
    def preloaded(self, script: str) -> Iterator[None]:
        """Pages that are opened within run a script before their own."""
        add = "Page.addScriptToEvaluateOnNewDocument"
        added = self.driver.execute_cdp_cmd(add, {"source": script})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let pages and their workers stand still, as a device does that has gone to sleep."""
        with stopped(descendants(self.driver.service.process.pid, "--type=renderer")):
            yield

    def text(self, selector: str) -> str:
        """The text of an element, shown or not."""
        return str(self.value(f"return document.querySelector({selector!r}).textContent"))

    def value(self, script: str) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script)

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait until something is true, however long it takes on a busy machine; returns it."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not (result := happened()):
            if time.monotonic() > deadline_s:
                pytest.fail(f"waited in vain; complaints: {self.complaints()}")
            time.sleep(0.1)
        return result

    def complaints(self) -> list[str]:
        """Warnings and errors since the last time, such as of what the policy forbids."""
        entries = self.driver.get_log("browser")
        bad = [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]
        return [
            message for message in bad if "willReadFrequently" not in message
        ]  # our own reading

    def fits(self) -> bool:
        """Whether the page is no wider than the window."""
        root = "document.documentElement"
        return bool(self.value(f"return {root}.scrollWidth <= {root}.clientWidth"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module: pages that play would take time from other tests."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium with its chromedriver")
    running = Browser(program, driver)
    yield running
    running.driver.quit()
