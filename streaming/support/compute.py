"""How many threads a model computes with, and how they wait for each other.

Import this before anything that brings OpenMP along: torch does, and so does PortAudio on some
systems. Whichever is first decides for the whole process.
"""

from __future__ import annotations

import atexit
import gc
import os

from codec.threads import use_threads

__all__ = ["settle", "use_threads"]

_GARBAGE = (20_000, 20, 10)
"""Objects made and not let go between two looks at the youngest, and how many looks before older
ones and all are looked at. What is let go is freed at once all the same, unless it is in a circle.
By Python's own figures (700, 10, 10) a server looks at everything again and again while thousands
of listeners come, which holds up all of them for half a second in the end."""

# OpenMP's threads shall sleep while they wait for each other. As a rule they spin; where sender
# and listener share two cores, one then spins while the other would have work to do, and decoding
# was seen to take twenty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def settle() -> None:
    """Have the garbage collector pass over all that is loaded by now, since it stays.

    With torch that is 170 000 objects. To look at each of them takes a tenth of a second, longer on
    a busy machine, in which nothing else of the program runs: not even a sound card's callback.
    """
    gc.collect()
    gc.freeze()
    # What has become garbage since then is let go at the end; extensions complain of it otherwise.
    atexit.register(gc.unfreeze)
    gc.set_threshold(*_GARBAGE)
