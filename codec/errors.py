"""Every exception the codecs raise on purpose; importable without torch.

Each message is one sentence that says what is wrong and what to do, fit to be shown as it is.
"""

__all__ = [
    "CodecError",
    "DataError",
    "DeviceError",
    "SettingError",
    "UnknownCodecError",
    "WeightsError",
]


class CodecError(Exception):
    """Base of all codec errors."""


class DataError(CodecError, ValueError):
    """Bytes that no tokens are written as."""


class DeviceError(CodecError):
    """A device that torch cannot compute on, or that is too slow for what is asked."""


class SettingError(CodecError, ValueError):
    """A window or a setting of the sampler that a codec cannot work with."""


class UnknownCodecError(CodecError):
    """A codec name that this program does not have."""


class WeightsError(CodecError):
    """A weights file that is missing, damaged or not the one asked for."""
