"""What playing costs a browser: from the click to the sound, CPU, reserve and memory.

    python -m benchmarks.web_player http://127.0.0.1:8765/ [--seconds 600]

needs a running station whose page plays, and Chromium with its chromedriver. The page is opened and
played twice; the second time the browser has the files, and what it compiled. CPU is that of the
page's process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

__all__ = ["main"]

_WARM_UP_S = 20.0
_PATIENCE_S = 300.0


class Page:
    """A station's page in Chromium, with a flag that lets it play without a person's click."""

    def __init__(self, url: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
            options.add_argument(f"--{flag}")
        self.driver = webdriver.Chrome(
            options=options, service=Service(shutil.which("chromedriver"))
        )
        self.url = url

    def open(self) -> None:
        """Load the page, until it offers to play."""
        self.driver.get(self.url)
        self.until(lambda: self.value("return !document.querySelector('#player').hidden"))

    def value(self, script: str) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script)

    def figure(self, name: str) -> float:
        """A number that the page shows."""
        text = str(self.value(f"return document.querySelector('#{name}').textContent"))
        return float(text.split()[0].replace("–", "nan"))

    def until(self, happened: Callable[[], Any]) -> None:
        """Wait until something is true. Raises TimeoutError if it does not come."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not happened():
            if time.monotonic() > deadline_s:
                raise TimeoutError("the page does not play")
            time.sleep(0.02)

    def play(self) -> float:
        """Press Play; seconds from there to the first sound."""
        began_s = time.monotonic()
        self.driver.find_element("id", "play").click()
        state = "document.querySelector('#play-state')"
        self.until(lambda: self.value(f"return Number({state}.dataset.sounding) > 0"))
        return time.monotonic() - began_s

    def renderer(self) -> int:
        """The process that computes the page and its worker: the busiest of its kind."""
        parents = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
        kin = {self.driver.service.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in kin} - kin:
            kin |= more
        pages = [p for p in kin if b"--type=renderer" in Path(f"/proc/{p}/cmdline").read_bytes()]
        return max(pages, key=_cpu_s)


def _stat(pid: int) -> list[str]:
    """Fields of a process from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def _cpu_s(pid: int) -> float:
    return sum(map(int, _stat(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    return int(_stat(pid)[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web_player", description=__doc__)
    parser.add_argument("url", help="of a station's page")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    page = Page(arguments.url)
    try:
        page.open()
        first_s = page.play()
        time.sleep(_WARM_UP_S)  # by then the browser has kept what it compiled
        page.open()
        again_s = page.play()
        time.sleep(_WARM_UP_S)
        pid = page.renderer()
        busy_s, memory_mb, began_s = _cpu_s(pid), _memory_mb(pid), time.monotonic()
        underruns, reserves = page.figure("underruns"), []
        while (passed_s := time.monotonic() - began_s) < arguments.seconds:
            time.sleep(1)
            reserves.append(page.figure("reserve"))
        grown_mb = _memory_mb(pid) - memory_mb
        sys.stdout.write(
            f"click to sound        {first_s:.1f} s, with the files there {again_s:.1f} s\n"
            f"CPU                   {(_cpu_s(pid) - busy_s) / passed_s:.2f} s per second\n"
            f"reserve               {min(reserves):.1f} to {max(reserves):.1f} s\n"
            f"underruns             {page.figure('underruns') - underruns:.0f}\n"
            f"memory                {memory_mb:.0f} MB, {grown_mb:+.0f} MB at the end\n"
        )
    finally:
        page.driver.quit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
