"""What holds for every test: models compute as the programs do, on one patient thread."""

from __future__ import annotations

from hypothesis import settings

from streaming.compute import DEFAULT_THREADS, use_threads

use_threads(DEFAULT_THREADS)

# How long an input takes says more about the machine than about us.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
