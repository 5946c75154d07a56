"""Fails if too few branches were covered: coverage's own limit mixes them with statements.

``python -m scripts.branches REPORT.json PERCENT`` reads what ``coverage json`` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 if enough branches were covered, otherwise 1."""
    report, least = Path(arguments[0]), float(arguments[1])
    totals = json.loads(report.read_text(encoding="utf-8"))["totals"]
    covered, branches = totals["covered_branches"], totals["num_branches"]
    percent = 100 * covered / branches if branches else 100.0
    print(f"Branches covered: {covered} of {branches}, {percent:.1f} % (at least {least:g} %)")
    return 0 if percent >= least else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
