"""Firefox without a screen, spoken to as it understands by itself: WebDriver BiDi.

Debian has no geckodriver. Without a sound device Firefox holds all sound back, so it gets one that
is private. Import both fixtures: `from tests.support.firefox import firefox, pulse`.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.processes import descendants, stopped
from tests.support.pulse import PulseServer, pulse

__all__ = ["Firefox", "firefox", "pulse"]

_PATIENCE_S = 180.0
_NAMES = ("firefox-esr", "firefox")
_SETTINGS = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.localDomains": "radio.test",
}


class Firefox:
    """What the tests of the player ask of it, as of :class:`tests.support.browser.Browser`."""

    def __init__(self, program: str, folder: Path, env: dict[str, str]) -> None:
        lines = (f"user_pref({name!r}, {json.dumps(value)});" for name, value in _SETTINGS.items())
        (folder / "user.js").write_text("\n".join(lines).replace("'", '"'))
        command = [program, "--headless", "--no-remote", "--profile", str(folder)]
        command += ["--remote-debugging-port", "0", "about:blank"]
        self._log = (folder / "firefox.log").open("w+b")
        env = {**env, "HOME": str(folder)}
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=self._log, env=env
        )
        address = self.until(self._address)
        self._open = ExitStack()
        connection = connect(f"{address}/session", max_size=None, proxy=None)
        self._socket = self._open.enter_context(connection)
        self._number = 0
        self._complaints: list[str] = []
        self._ask("session.new", {"capabilities": {}})
        self._ask("session.subscribe", {"events": ["log.entryAdded"]})
        tree = self._ask("browsingContext.getTree", {})
        self._context = tree["contexts"][0]["context"]

    def _address(self) -> str:
        said = Path(self._log.name).read_text(errors="replace")
        found = re.search(r"BiDi listening on (ws://\S+)", said)
        return found[1] if found else ""

    def _ask(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE_S))
            if answer.get("method") == "log.entryAdded":
                if answer["params"]["level"] in ("warn", "error"):
                    self._complaints.append(str(answer["params"].get("text")))
            elif answer.get("id") == self._number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def open(self, url: str) -> None:
        """Go to a page; what the one before complained of is forgotten."""
        self._ask(
            "browsingContext.navigate", {"context": self._context, "url": url, "wait": "complete"}
        )
        self._complaints.clear()

    def show(self, width: int) -> None:
        """Look at pages in a width."""
        size = {"width": width, "height": 900}
        self._ask("browsingContext.setViewport", {"context": self._context, "viewport": size})

    def value(self, script: str) -> Any:
        """What the body of an async function returns."""
        wrapped = f"(async () => {{ {script} }})().then((value) => JSON.stringify(value ?? null))"
        answer = self._ask(
            "script.evaluate",
            {
                "expression": wrapped,
                "target": {"context": self._context},
                "awaitPromise": True,
            },
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    @contextmanager
    def preloaded(self, script: str) -> Iterator[None]:
        """Pages that are opened within run a script before their own."""
        added = self._ask("script.addPreloadScript", {"functionDeclaration": f"() => {{{script}}}"})
        try:
            yield
        finally:
            self._ask("script.removePreloadScript", added)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let pages and their workers stand still, as a device does that has gone to sleep."""
        with stopped(descendants(self._process.pid, "-isForBrowser")):
            yield

    def text(self, selector: str) -> str:
        """The text of an element, shown or not."""
        return str(self.value(f"return document.querySelector({selector!r}).textContent"))

    def click(self, selector: str) -> None:
        """Click an element as a person does."""
        self.value(
            f"document.querySelector({selector!r}).scrollIntoView({{ behavior: 'instant' }})"
        )
        x, y = self.value(
            f"const box = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)]"
        )
        actions = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        source = {"type": "pointer", "id": "mouse", "actions": actions}
        self._ask("input.performActions", {"context": self._context, "actions": [source]})

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait until something is true, however long it takes on a busy machine; returns it."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not (result := happened()):
            if time.monotonic() > deadline_s:
                pytest.fail(f"waited in vain; complaints: {self._complaints}")
            time.sleep(0.1)
        return result

    def complaints(self) -> list[str]:
        """Warnings and errors of the page since it was opened."""
        self.value("return 0")  # what has been said has come by then
        return list(self._complaints)

    def screenshot(self, path: Path) -> None:
        """Leave a picture of the page."""
        answer = self._ask(
            "browsingContext.captureScreenshot", {"context": self._context, "origin": "document"}
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """End it."""
        self._open.close()
        self._process.terminate()
        self._process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def firefox(pulse: PulseServer) -> Iterator[Firefox]:
    """One Firefox for the tests of a module."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no firefox")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        running = Firefox(program, Path(folder), pulse.env)
        yield running
        running.close()
