"""The quality benchmark: measures, yardsticks, goals, table and page, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from benchmarks import opus, quality
from benchmarks.baselines import shuffle_learnt
from benchmarks.measures import MEASURES
from benchmarks.results import Recording, Results
from codec.constants import SAMPLE_RATE
from codec.nano.torch_weights import load_torch_nano
from codec.nano.weights import read_weights
from tests.support.rendition import SONGS

SECONDS = 3
ALWAYS = {"decoded", "copy", "mono", "mean-mel", "shuffled", "half shuffled"}
OPUS = {"opus-lowest", "opus-default"} if opus.problem() is None else set()


@dataclass(frozen=True)
class Run:
    """What one run with `--out` left."""

    folder: Path
    printed: str
    said: str

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads((self.folder / "figures.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("music")
    strange = folder / 'It\'s "<b>&" März.flac'  # a name to be escaped and not to be a file's
    data, rate = soundfile.read(SONGS[1], frames=SECONDS * SAMPLE_RATE)
    soundfile.write(strange, data, rate)
    out = folder / "page"
    arguments = [str(SONGS[0]), str(strange), f"--seconds={SECONDS}", "--finer-steps=6"]
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as said:
        quality.main([*arguments, f"--out={out}"])
    return Run(out, printed.getvalue(), said.getvalue())


def test_every_version_has_every_measure(run: Run) -> None:
    figures = run.figures
    assert len(figures["files"]) == 2
    assert figures["mean"].keys() == ALWAYS | OPUS | {"finer"}
    assert all(row.keys() == MEASURES.keys() for row in figures["mean"].values())
    assert all(len(rows) == 2 for rows in figures["each"].values())
    each = [row["chroma"] for row in figures["each"]["decoded"]]
    assert figures["mean"]["decoded"]["chroma"] == pytest.approx(sum(each) / 2)


def test_the_yardsticks_stand_where_they_should(run: Run) -> None:
    mean = run.figures["mean"]
    assert mean["copy"]["log_mel"] < mean["decoded"]["log_mel"] < mean["shuffled"]["log_mel"]
    assert mean["mean-mel"]["time_tx"] < mean["copy"]["time_tx"]
    assert abs(mean["mean-mel"]["envelope"]) < 0.5 < mean["copy"]["envelope"]
    assert mean["mono"]["width_db"] > mean["copy"]["width_db"]
    assert mean["mono"]["chroma"] == pytest.approx(mean["decoded"]["chroma"], abs=0.05)
    assert mean["finer"]["log_mel"] != mean["decoded"]["log_mel"]


def test_entropy_is_that_of_the_tokens_with_what_they_can_show_at_most(run: Run) -> None:
    entropy = run.figures["entropy"]
    assert entropy["all"]["tokens"] == sum(each["tokens"] for each in entropy["each"]) == 150
    assert 4 < entropy["all"]["bits"] <= entropy["all"]["most_bits"]
    assert all(0 < each["bits"] <= each["most_bits"] for each in entropy["each"])


def test_rates_are_those_of_the_bits(run: Run) -> None:
    rates = run.figures["bits_per_s"]
    assert rates["decoded"] == [350, 350]
    assert rates["copy"] == [None, None]


def test_the_table_has_a_line_for_every_measure_and_goal(run: Run) -> None:
    lines = run.printed.splitlines()
    assert "means over 2 recordings" in lines[0]
    assert all(name in lines[1] for name in ALWAYS | OPUS)
    for label in [measure.label for measure in MEASURES.values()] + ["log-mel over copy"]:
        assert any(line.startswith(label) for line in lines)
    assert "of at most 7.23 that 150 tokens can show" in run.printed
    assert "(too little music to tell)" in run.printed


def test_the_page_is_named_at_the_end(run: Run) -> None:
    assert run.said.splitlines()[-1] == f"Open {(run.folder / 'index.html').as_uri()} in a browser."


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    quality.main([str(SONGS[0]), "--seconds=1", "--limit=1", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["files"] == [str(SONGS[0])]
    assert figures["seconds"] == [1.0]


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags match."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data

    def all(self, tag: str, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    page = Page()
    page.feed((run.folder / "index.html").read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def test_every_sound_of_the_page_is_there_and_whole(run: Run, page: Page) -> None:
    sounds = page.all("audio", "src")
    assert len(sounds) == 2 * (3 + len(OPUS))
    for name in sounds:
        info = soundfile.info(run.folder / name)
        assert (info.samplerate, info.channels) == (SAMPLE_RATE, 2)
        assert info.frames == SECONDS * SAMPLE_RATE
    original, _ = soundfile.read(run.folder / sounds[0], dtype="float32")
    source, _ = soundfile.read(SONGS[0], frames=SECONDS * SAMPLE_RATE, dtype="float32")
    assert abs(original - source).max() < 1e-4


def test_every_picture_is_there_and_described(run: Run, page: Page) -> None:
    pictures = page.all("img", "src") + page.all("source", "srcset")
    assert len(pictures) == 2 * (3 + len(OPUS)) + 2
    for name in pictures:
        assert (run.folder / name).read_bytes().startswith(b"\x89PNG")
    assert all(len(text) > 20 for text in page.all("img", "alt"))
    assert all(text for text in page.all("audio", "aria-label"))


def test_the_page_needs_nothing_from_elsewhere(run: Run) -> None:
    text = (run.folder / "index.html").read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "//" not in text.split("<script>")[0]
    assert str(run.folder) not in text


def test_the_page_names_rates_and_figures_and_escapes_names(run: Run, page: Page) -> None:
    assert 'It\'s "<b>&" März' in page.text
    assert "350 bit/s" in page.text
    assert "1536 kbit/s" in page.text
    assert not page.all("b", "class")
    for measure in MEASURES.values():
        assert measure.label in page.text
        assert measure.meaning in page.text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [href for href in page.all("a", "href") if href.startswith("#")]
    assert {target[1:] for target in targets} <= set(ids)


def recording(tokens: int, **figures: float) -> Recording:
    base = dict.fromkeys(MEASURES, 1.0) | figures
    rows = dict.fromkeys(ALWAYS, base)
    tokens_seen = torch.arange(tokens) % 16384
    return Recording("song.wav", 1.0, tokens_seen, rows, dict.fromkeys(ALWAYS, None))


def judged(results: Results, label: str) -> tuple[Any, str]:
    outcomes = {outcome.label: outcome for outcome in results.outcomes}
    return outcomes[label].value, outcomes[label].renders


def test_goals_are_judged_on_means_and_say_what_is_missed() -> None:
    results = Results("nano", [recording(10, chroma=0.96), recording(10, chroma=0.9)])
    assert judged(results, "chroma correlation") == (pytest.approx(0.93), "≥ 0.92")
    results = Results("nano", [recording(10, chroma=0.9), recording(10, chroma=0.7)])
    assert judged(results, "chroma correlation") == (pytest.approx(0.8), "≥ 0.92 (missed)")
    assert results.worst("decoded", "chroma") == 0.7


def test_levels_of_opposite_signs_do_not_make_up_for_each_other() -> None:
    results = Results("nano", [recording(10, level_db=3.0), recording(10, level_db=-3.0)])
    assert results.mean("decoded", "level_db") == 0
    assert judged(results, "level, mean size, dB") == (3.0, "≤ 1 (missed)")
    results = Results("nano", [recording(10, lit=0.2), recording(10, lit=-0.2)])
    outcomes = {outcome.label: outcome for outcome in results.outcomes}
    for label in ("lit semitones, mean size", "lit semitones, mean size of copy"):
        assert outcomes[label].value == pytest.approx(0.2)
        assert outcomes[label].real == "≤ 0.1 (missed)"


def test_entropy_is_judged_only_where_there_are_tokens_enough() -> None:
    few, many = Results("nano", [recording(4000)]), Results("nano", [recording(4000)] * 2)
    assert judged(few, "code entropy, bits") == (None, "≥ 12 (too little music to tell)")
    assert judged(many, "code entropy, bits") == (pytest.approx(11.966, abs=1e-3), "≥ 12 (missed)")


def test_shuffling_what_is_learnt_leaves_the_rest_in_place() -> None:
    nano = load_torch_nano(read_weights())
    tokens = torch.randint(0, 16384, (200,), generator=torch.Generator().manual_seed(0))
    straight, back = torch.arange(200), torch.arange(200).flip(0)
    assert torch.equal(shuffle_learnt(nano, tokens, straight), tokens)
    mixed = shuffle_learnt(nano, tokens, back)
    assert not torch.equal(mixed, tokens)
    assert not torch.equal(mixed, tokens[back])
    assert torch.equal(shuffle_learnt(nano, mixed, back), tokens)


@pytest.fixture
def no_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PATH with nothing on it; returns its one folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    opus.problem.cache_clear()
    yield folder
    opus.problem.cache_clear()


def test_without_ffmpeg_opus_is_left_out_with_a_sentence(
    no_ffmpeg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quality.main([str(SONGS[0]), "--seconds=1", "--json"])
    said = capsys.readouterr()
    assert said.err.count("Opus is left out: ffmpeg is not installed; run: ") == 1
    assert json.loads(said.out)["mean"].keys() == ALWAYS


def test_an_ffmpeg_without_libopus_is_said_too(no_ffmpeg: Path) -> None:
    script = no_ffmpeg / "ffmpeg"
    script.write_text("#!/bin/sh\necho ' A....D flac  FLAC'\n")
    script.chmod(0o755)
    assert opus.problem() == "Opus is left out: this ffmpeg is built without libopus."


def test_a_page_without_matplotlib_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.quality.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_info:
        quality.main([str(SONGS[0]), f"--out={tmp_path / 'page'}"])
    assert exit_info.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert "run: pip install '.[demo]'" in said[-1]
    assert not any(line.startswith("1/1") for line in said)
    assert not (tmp_path / "page").exists()


def test_nothing_to_measure_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(SystemExit) as exit_info:
            quality.main([str(place)])
        assert exit_info.value.code == 2
        assert f"there is no recording (.wav, .flac, .ogg, .mp3, .opus) in {place}" in (
            capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["broken.wav"], "broken.wav cannot be read as sound"),
        (["short.wav"], "short.wav is shorter than 1 s"),
        (["short.wav", "--seconds=0.5"], "--seconds must be at least 1"),
        (["short.wav", "--limit=0"], "--limit must be at least 1"),
        (["short.wav", "--weights=none.safetensors"], "there is no file none.safetensors"),
        (["short.wav", "--out=short.wav"], "short.wav"),
    ],
)
def test_what_cannot_be_measured_ends_with_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.wav").write_bytes(b"RIFF")
    soundfile.write("short.wav", torch.zeros(4800, 2).numpy(), SAMPLE_RATE)
    with pytest.raises(SystemExit) as exit_info:
        quality.main(arguments)
    assert exit_info.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
