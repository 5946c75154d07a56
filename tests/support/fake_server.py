"""``server.py`` with the codec of the tests, to be started as a process: needs no weights."""

from __future__ import annotations

from streaming.cli import server
from streaming.cli.start import start
from tests.support.fake_codec import FakeCodec


def main() -> int:
    """Run it; returns the exit code."""
    return server.main(load_codec=lambda name, **options: FakeCodec())


if __name__ == "__main__":
    start("tests.support.fake_server", "server.py")
