"""nano: the embedded codec, small enough for the repository, faster than real time on two cores."""

from codec.nano.codec import Nano, load_nano

__all__ = ["Nano", "load_nano"]
