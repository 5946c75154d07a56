"""Measurements: ``python -m benchmarks.codec`` and ``python -m benchmarks.latency``."""
