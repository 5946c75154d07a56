"""How every program of the training ends: what the user can mend is one sentence and code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from codec.errors import CodecError
from streaming.errors import UserError

__all__ = ["run_program"]


def run_program(name: str, body: Callable[[], None]) -> int:
    """Exit code of ``body``."""
    try:
        body()
    except (UserError, CodecError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; start it again to go on", file=sys.stderr)
        return 130
    return 0
