"""Tests: the folders mirror those of the code, and what spans several is here at the top.

Attributes:
    ROOT: The checkout.
    DATA: Recordings that nano never heard in training (``held_*``), and what is to come out of it.
"""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DATA: Final = ROOT / "tests" / "data"
