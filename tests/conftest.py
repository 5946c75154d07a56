"""What holds for every test: models compute as the programs do, on one patient thread; and which
tests `make check` leaves out.
"""

from __future__ import annotations

import signal
import sys
from types import ModuleType
from typing import Any, Final

import pytest
from hypothesis import settings

from streaming.support.compute import use_threads

use_threads(1)

# A shell has what it runs in the background ignore these, and so would the programs that tests end.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an input takes says more about the machine than about us.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_SYSTEM: Final = (
    *("asyncio.subprocess", "multiprocessing", "onnx", "onnxruntime", "selenium", "subprocess"),
    *("benchmarks", "codec.mucodec", "codec.nano", "scripts", "training"),
    *(
        "tests.support.browser",
        "tests.support.mosquitto",
        "tests.support.programs",
        "tests.support.pulse",
    ),
)
"""A test module that has something of these starts programs, or computes with real models."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of such modules as `system`."""
    for item in items:
        module = getattr(item, "module", None)
        if module is not None and any(map(_is_system, vars(module).values())):
            item.add_marker("system")


def _is_system(value: object) -> bool:
    origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
    return any(f"{origin}.".startswith(f"{name}.") for name in _SYSTEM)


@pytest.fixture(autouse=True, scope="session")
def _find_what_is_taken_for_others(pytestconfig: pytest.Config) -> None:
    """Where system tests are left out, let no other one start a program."""
    if "not system" in pytestconfig.option.markexpr:
        sys.addaudithook(_forbid_programs)


def _forbid_programs(event: str, arguments: tuple[Any, ...]) -> None:
    # openssl makes a certificate in no time.
    if event in ("subprocess.Popen", "os.posix_spawn") and arguments[0] != "openssl":
        raise AssertionError("a test that starts programs needs pytestmark = pytest.mark.system")
