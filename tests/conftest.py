"""What holds for every test: models compute as the programs do, on one patient thread."""

from __future__ import annotations

from streaming.compute import DEFAULT_THREADS, use_threads

use_threads(DEFAULT_THREADS)
