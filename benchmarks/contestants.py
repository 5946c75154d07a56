"""Who is measured in ``benchmarks.side_by_side``, and what each makes of a recording.

Latency is that of the codec as such: how long the sample that waits longest waits for its frame or
window to be complete and for what is heard beyond it. Computing, packets, network and buffers come
on top of it, for every codec alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor

from benchmarks import codec2, opus
from benchmarks.codec import decode, encode
from codec.base import Codec, DecoderWindow, DecodeSettings, EncoderWindow
from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_BITS
from codec.nano import Nano
from codec.torch_backend import tensor

__all__ = ["CODEC2_MODES", "CONTESTANTS", "NANO_WINDOWS", "Contestant", "Windows"]

WITHOUT_TRANSFORMERS = (
    "EnCodec, DAC and Mimi are left out: the package transformers is not installed; "
    "run: pip install '.[compare]'"
)


@dataclass(frozen=True)
class Windows:
    """nano's live windows."""

    encoder: EncoderWindow
    decoder: DecoderWindow

    @property
    def latency_s(self) -> float:
        """How long the sample that waits longest waits until it can be decoded.

        Tokens come an encoder hop at a time, each hop a lookahead after its last sample; they are
        sound as soon as the decoder has a hop of its own and its lookahead.
        """
        hop, longest, known = self.encoder.hop, 0, 0
        for token in range(hop * self.decoder.hop):  # all ways in which the hops can meet
            while self.decoder.decodable(known) <= token:
                known += hop
            longest = max(longest, known + self.encoder.lookahead - token)
        return longest * SAMPLES_PER_TOKEN / SAMPLE_RATE

    def round_trip(self, nano: Codec, audio: Tensor) -> tuple[Tensor, float]:
        """Sound of ``[2, samples]`` through these windows, and its bits a second."""
        tokens = encode(nano, audio, self.encoder)
        sound = decode(nano, tokens, self.decoder, DecodeSettings())
        rate = TOKEN_BITS * len(tokens) * SAMPLE_RATE / audio.shape[1]
        return tensor(sound[:, : audio.shape[1]]), rate


NANO_WINDOWS = {
    "nano": Windows(Nano.encoder_window, Nano.decoder_window),
    "nano-low-latency": Windows(
        EncoderWindow(Nano.encoder_window.left, 8, 8),
        DecoderWindow(Nano.decoder_window.context, 8, 8),
    ),
}


@dataclass(frozen=True)
class Contestant:
    """label: what the table says. sound: rate and channels that the codec itself has.

    Attributes:
        problem: why it cannot be measured here, a sentence that says what to do, or None.
        threaded: whether it can make use of more than one thread.
        round_trip: sound and bits a second of ``[2, samples]`` at 48 kHz; None if weights are
            random.
    """

    label: str
    sound: str
    problem: Callable[[], str | None]
    threaded: bool = True
    round_trip: Callable[[Codec, Tensor], tuple[Tensor, float]] | None = None


def _no_problem() -> None:
    return None


def _without_transformers() -> str | None:
    try:
        return None if find_spec("transformers") else WITHOUT_TRANSFORMERS
    except ValueError:  # the name is blocked in sys.modules
        return WITHOUT_TRANSFORMERS


def _codec2(mode: codec2.Mode) -> Contestant:
    return Contestant(
        f"Codec2 {mode.name}",
        "8 kHz mono",
        codec2.problem,
        threaded=False,
        round_trip=lambda _, audio: codec2.round_trip(audio, mode),
    )


CODEC2_MODES = {"codec2-700c": codec2.MODE_700C, "codec2-3200": codec2.MODE_3200}
CONTESTANTS: dict[str, Contestant] = {
    "nano": Contestant(
        "nano", "48 kHz stereo", _no_problem, round_trip=NANO_WINDOWS["nano"].round_trip
    ),
    "nano-low-latency": Contestant(
        "nano, low latency",
        "48 kHz stereo",
        _no_problem,
        round_trip=NANO_WINDOWS["nano-low-latency"].round_trip,
    ),
    "opus": Contestant(
        "Opus, 6 kbit/s asked for",
        "48 kHz",
        opus.problem,
        threaded=False,
        round_trip=lambda _, audio: opus.round_trip(audio, opus.SIX_KBIT),
    ),
    **{name: _codec2(mode) for name, mode in CODEC2_MODES.items()},
    "encodec": Contestant("EnCodec, random", "48 kHz stereo", _without_transformers),
    "dac": Contestant("DAC, random", "44.1 kHz mono", _without_transformers),
    "mimi": Contestant("Mimi, random", "24 kHz mono", _without_transformers),
}
