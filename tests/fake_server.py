"""``server.py`` with the codec of the tests, to be started as a process: needs no weights."""

from __future__ import annotations

import sys

import server
from tests.fake_codec import FakeCodec

if __name__ == "__main__":
    sys.exit(server.main(load_codec=lambda name, **options: FakeCodec()))
