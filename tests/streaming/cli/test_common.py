"""What both programs' command lines have in common: options of the codec, errors, exit codes."""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import codec
from codec.errors import DeviceError
from streaming.cli.common import (
    add_common_arguments,
    add_decoder_arguments,
    codec_loader,
    number,
    run_program,
)
from streaming.errors import SettingsError
from streaming.support.status_line import StatusLine
from tests.support.fake_codec import FakeCodec


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Loggers and threads belong to the whole process; tests after these must not notice."""
    root, threads = logging.getLogger(), torch.get_num_threads()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    torch.set_num_threads(threads)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_decoder_arguments(parser)
    add_common_arguments(parser, "decoding")
    return parser.parse_args(arguments)


def options_of(name: str, *arguments: str) -> dict[str, object]:
    """What the codec is loaded with."""
    seen: dict[str, object] = {}

    def load(name: str, **options: object) -> FakeCodec:
        seen.update(options, name=name)
        return FakeCodec()

    codec_loader(parse(*arguments), load, "decoder")(name)
    return seen


def test_codecs_are_loaded_as_the_arguments_ask() -> None:
    assert options_of("nano") == {"name": "nano", "part": "decoder"}
    assert options_of("nano", "--no-compile", "--torch-device", "cuda:1", "--weights", "w") == {
        "name": "nano",
        "part": "decoder",
        "compiled": False,
        "device": "cuda:1",
        "weights": Path("w"),
    }


def test_precision_and_guidance_interval_reach_the_codec() -> None:
    options = options_of("mucodec", "--precision=fp8", "--guidance-interval=0.1:0.6")
    assert options["precision"] == "fp8"
    assert options["guidance_interval"] == (0.1, 0.6)
    for bad in ("0.1", "0.1:1.6", "0.6:0.1", "a:b"):
        with pytest.raises(SystemExit):
            options_of("mucodec", f"--guidance-interval={bad}")


def test_weights_are_those_of_the_codec_that_was_named() -> None:
    """A listener may meet a stream of another codec, whose weights are others."""
    assert "weights" not in options_of("mucodec", "--weights", "nano-2.safetensors")
    assert options_of("mucodec", "--codec=mucodec", "--weights=w")["weights"] == Path("w")


def test_threads_are_those_of_the_argument_or_of_the_codec() -> None:
    options_of("nano", "--threads", "3")
    assert torch.get_num_threads() == 3
    options_of("nano")
    assert torch.get_num_threads() == 1
    options_of("mucodec")
    assert torch.get_num_threads() == codec.default_threads("mucodec") >= 1


def test_numbers_out_of_range_are_told_so() -> None:
    parser = number(float, 0, 2)
    assert parser("1.5") == 1.5
    for text in ("-1", "3", "nan", "some"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 0 to 2"):
            parser(text)


@pytest.mark.parametrize("verbose", [False, True])
def test_errors_become_a_sentence_and_a_code(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    status = StatusLine(io.StringIO())
    arguments = parse(*["--verbose"] * verbose)

    def fail(error: BaseException) -> int:
        def body() -> None:
            raise error

        return run_program("here", arguments, status, body)

    assert run_program("here", arguments, status, lambda: None) == 0
    assert logging.getLogger().level == (logging.DEBUG if verbose else logging.INFO)
    assert fail(SettingsError("This is wrong.")) == 2
    assert fail(DeviceError("that too")) == 2
    assert capsys.readouterr().err == "here: This is wrong.\nhere: that too\n"
    assert fail(KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):  # a fault of ours is not hidden
        fail(ZeroDivisionError())


def test_unknown_codecs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse("--codec", "opus")
    assert exit_info.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in codec.CODECS)
