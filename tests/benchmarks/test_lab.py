"""The lab: trials of the real engine, sweeps of them, the page, the tuner."""

from __future__ import annotations

import configparser
import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from benchmarks import lab
from benchmarks.lab import __main__ as program
from benchmarks.lab import trial as trials_module
from benchmarks.lab import tune
from benchmarks.lab.charts import TERM_COLOURS, WIRE_COLOURS, charts, grouped
from benchmarks.lab.settings import Setting, SettingError
from codec.constants import SAMPLE_RATE
from tests import DATA, ROOT
from tests.support.fake_codec import FakeCodec

SONG = DATA / "held_0.ogg"
WIFI = "rate=1Mbit/s,delay=50ms"


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "load_codec", lambda name: FakeCodec())
    monkeypatch.setattr(tune, "load_codec", lambda name: FakeCodec())


def _run(link: str = WIFI, seconds: float = 40.0, **options: Any) -> lab.Result:
    setting = options.pop("setting", Setting(codec="fake"))
    return lab.run(
        lab.Trial(SONG, setting, lab.parse_link(link), link, seconds, compared_s=10, **options)
    )


def test_a_trial_measures_what_the_engine_does() -> None:
    result = _run()
    figures = result.figures
    assert not result.problem
    assert (figures["lost_tokens"], figures["underruns"], figures["silent_s"]) == (0, 0, 0)
    assert figures["start_s"] == pytest.approx(0.4, abs=0.3)  # four times there and back
    # 48 tokens a packet, 4 of lookahead on both sides, half a second of reserve.
    assert figures["latency_s"] == pytest.approx(1.92 + 0.16 + 0.32 + 0.05 + 0.5, abs=0.35)
    assert sum(result.terms_s.values()) == pytest.approx(figures["latency_s"])
    assert set(result.terms_s) == set(TERM_COLOURS)
    assert result.wire["tokens"] == pytest.approx(350, rel=0.1)
    assert figures["wire_bits_per_s"] == pytest.approx(640, rel=0.1)
    assert set(result.wire) == set(WIRE_COLOURS)
    assert figures["seam"] == pytest.approx(1, abs=0.5)
    assert figures["envelope"] is not None
    assert figures["envelope"] > 0.8  # loudness is what the fake codec knows
    assert max(t for t in result.series["t"] if t is not None) > 35


def test_the_same_trial_ends_the_same() -> None:
    first, second = (
        _run("rate=5kbit/s,delay=200ms,jitter=200ms,loss=5%", cpu_factor=0.0) for _ in range(2)
    )
    assert first.series == second.series
    assert first.wire == second.wire


def test_outages_show_as_silence_and_as_latency_but_lose_nothing() -> None:
    bad = _run("rate=5kbit/s,delay=100ms,outage=8s/40s", seconds=60)
    assert bad.figures["lost_tokens"] == 0
    assert (bad.figures["silent_s"] or 0) > 2
    assert (bad.figures["latency_most_s"] or 0) > (_run().figures["latency_s"] or 0) + 2
    assert 1.0 in bad.series["down"]
    assert bad.wire["repeated"] > 0


def test_a_link_that_is_too_slow_plays_nothing_and_says_so() -> None:
    result = _run("rate=100bit/s,delay=1s")
    assert result.figures["start_s"] is None
    assert result.terms_s == {}


def test_a_slow_processor_shows_in_the_sound() -> None:
    quick, slow = (_run(cpu_factor=factor, seconds=30) for factor in (0.0, 1.0))
    rtf = slow.figures["decode_rtf"] or 0
    slower = _run(cpu_factor=3 / rtf, seconds=30)  # three seconds of work for a second of sound
    assert quick.figures["underruns"] == 0
    assert (slower.figures["silent_s"] or 0) > 3


def test_shorter_packets_are_sooner_there_and_cost_more() -> None:
    short, long = (_run(setting=Setting(codec="fake", packet=packet)) for packet in (0.32, 2.56))
    assert short.figures["latency_s"] is not None
    assert long.figures["latency_s"] is not None
    assert short.figures["latency_s"] < long.figures["latency_s"] - 1.5
    assert short.wire["headers"] > 4 * long.wire["headers"]


def test_a_one_way_link_carries_the_stream_where_tcp_cannot() -> None:
    radio = "rate=600bit/s,delay=1s,loss=4%,burst=1.5"
    plain = Setting(codec="fake", transport="serial")
    result = _run(radio, 120.0, setting=plain, seed=3)
    assert not result.problem
    assert result.wire["headers"] == 0
    assert result.wire["tokens"] + result.wire["framing"] < 400
    assert (result.figures["lost_tokens"] or 0) > 0  # nothing is sent again
    coded = Setting(codec="fake", transport="serial", fec="8/4", margin=25.0)
    repaired = _run(radio, 120.0, setting=coded, seed=3)
    assert (repaired.figures["lost_tokens"] or 0) < (result.figures["lost_tokens"] or 0)
    datagrams = _run("rate=5kbit/s", 60.0, setting=Setting(codec="fake", transport="udp"))
    assert datagrams.wire["headers"] > 80
    with pytest.raises(SettingError, match="pigeon"):
        _run(setting=Setting(codec="fake", transport="pigeon"))


def test_sound_is_kept_to_listen_to(tmp_path: Path) -> None:
    import soundfile as sf

    lab.run(
        lab.Trial(SONG, Setting(codec="fake"), seconds=20.0, compared_s=5.0), tmp_path / "trial"
    )
    for name in ("original", "heard"):
        sound, rate = sf.read(tmp_path / f"trial-{name}.ogg")
        assert rate == SAMPLE_RATE
        assert len(sound) == 5 * SAMPLE_RATE
        assert abs(sound).max() > 0.01


def test_sweeps_are_every_combination_once() -> None:
    swept = lab.expand({"hop": [0.32, 0.64], "steps": [0, 1, 1]})
    assert [(s.hop, s.steps) for s in swept] == [(0.32, 0), (0.32, 1), (0.64, 0), (0.64, 1)]
    assert lab.parse_sweep("hop=0.32, 0.64s") == ("hop", [0.32, 0.64])
    assert lab.parse_sweep("steps=0,4") == ("steps", [0, 4])
    assert lab.parse_sweep("catch-up=jump") == ("catch_up", ["jump"])


@pytest.mark.parametrize("text", ["hop", "colour=red", "steps=many", "hop=0.32;0.64"])
def test_a_sweep_that_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(SettingError, match=r"\.$"):
        lab.parse_sweep(text)


def test_settings_are_whole_tokens_and_known_presets() -> None:
    codec = FakeCodec()
    with pytest.raises(SettingError, match="0\\.32 s"):
        Setting(hop=0.33).encoder(codec)
    with pytest.raises(SettingError, match="preset"):
        Setting(preset="best").encoder(codec)
    with pytest.raises(SettingError, match="setting 'colour'"):
        lab.expand({"colour": [1]})
    packet, window = Setting(hop=0.64, encoder_lookahead=0.2).encoder(codec)
    assert (packet, window.hop, window.lookahead) == (48, 16, 5)
    assert Setting(hop=0.64, decoder_hop=0.32, context=1.0).decoder(codec).context == 25
    low = Setting(preset="low-latency")
    assert (low.encoder(codec)[0], low.decoder(codec).hop, low.margin_s) == (8, 8, 0.2)
    assert Setting(steps=4, margin=1.5).label == "steps 4, margin 1.5"


def _sweep(folder: Path, **options: Any) -> list[lab.Result]:
    return lab.sweep(
        [SONG],
        {"packet": [0.32, 1.92], "steps": [0, 1]},
        link="rate=20kbit/s,delay=100ms,outage=3s/30s",
        out=folder,
        jobs=1,
        base=Setting(codec="fake"),
        seconds=20.0,
        compared_s=4.0,
        **options,
    )


def test_a_sweep_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def stop(number: int, trial: lab.Trial) -> None:
        told.append(number)
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _sweep(tmp_path, done=stop)
    results = _sweep(tmp_path, done=lambda number, trial: told.append(number))
    assert told == [1, 2, 3, 4]
    monkeypatch.setattr("benchmarks.lab.runs.run", lambda *_: pytest.fail("was run again"))
    assert _sweep(tmp_path) == results
    assert len(lab.load(tmp_path)) == 4


def test_the_table_has_a_row_for_each_trial_and_the_page_all_pictures(tmp_path: Path) -> None:
    results = _sweep(tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["packet"] for row in rows} == {"0.32", "1.92"}
    assert all(float(row["latency_s"]) > 0 for row in rows)
    assert lab.rows(results)[0]["latency_s"] == pytest.approx(float(rows[0]["latency_s"]))

    page = lab.report(results, tmp_path).read_text(encoding="utf-8")
    assert page.count("<svg") == len(charts(results)) == 7
    for title in ("Latency", "Rate on the wire", "Quality against steps", "Seams", "reserve over"):
        assert title in page
    assert page.count("<audio") == 5  # one original
    assert "http://" not in page.replace("http://www.w3.org", "")  # names, not addresses
    assert "https://" not in page
    sound = next(tmp_path.rglob("*-heard.ogg"))
    assert sound.relative_to(tmp_path).as_posix() in page
    assert sound.with_suffix(".png").is_file()


def test_a_trial_that_cannot_run_has_its_reason_in_the_table(tmp_path: Path) -> None:
    (broken := tmp_path / "broken.ogg").write_bytes(b"no sound")
    results = lab.sweep([broken], out=tmp_path / "out", jobs=1, seconds=20.0)
    assert "broken.ogg" in results[0].problem
    assert lab.rows(results)[0]["problem"] == results[0].problem
    assert "What did not play" in lab.report(results, tmp_path / "out").read_text("utf-8")


def test_trials_run_in_processes_of_their_own(tmp_path: Path) -> None:
    results = lab.sweep(
        [SONG], {"packet": [0.33, 0.34]}, out=tmp_path, jobs=2, seconds=20.0
    )  # neither can run, which takes no time
    assert ["whole number of tokens" in result.problem for result in results] == [True, True]


def test_another_setting_link_or_file_is_another_trial(tmp_path: Path) -> None:
    (song := tmp_path / "song.ogg").write_bytes(SONG.read_bytes())
    base = lab.Trial(song)
    keys = {base.key, lab.Trial(song, Setting(hop=0.32)).key}
    keys |= {lab.Trial(song, link=lab.parse_link("geo")).key, lab.Trial(song, seconds=61).key}
    song.write_bytes(SONG.read_bytes()[:-1])
    keys.add(base.key)
    assert len(keys) == 5
    assert lab.trial_of(_run("")).link == lab.LinkModel()


def test_the_program_prints_a_table_and_leaves_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        str(SONG), "--sweep", "packet=0.32,0.64", "--sweep", "codec=fake", "--link", "geo",
        "--seconds", "20", "--compared", "3", "--jobs", "1", "--out", str(tmp_path),
    ]  # fmt: skip
    program.main(arguments)
    told = capsys.readouterr()
    assert "packet 0.32 · geo" in told.out
    assert told.out.startswith(" ")
    assert "2/2" in told.err
    assert (tmp_path / "index.html").is_file()
    program.main(["--links"])
    assert "MIL-STD-188-110B" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["missing.ogg"],
        [str(SONG), "--sweep", "colour=red"],
        [str(SONG), "--link", "moon"],
        [str(SONG), "--seconds", "1"],
    ],
)
def test_the_program_tells_what_is_wrong_in_a_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main([*arguments, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_tuner_leaves_out_what_cannot_fit() -> None:
    codec = FakeCodec()
    few = tune.candidates(codec, lab.parse_link("rate=700bit/s"), 8)
    many = tune.candidates(codec, lab.parse_link("rate=1Mbit/s"), 8)
    assert len(few) < len(many)
    rates = [tune.wire_bits_per_s(setting.encoder(codec)[0]) for setting in few]
    assert max(rates) < 700
    with pytest.raises(tune.TuneError, match="carries 293 bit/s"):
        tune.candidates(codec, lab.parse_link("lora-sf12"), 8)
    with pytest.raises(tune.TuneError, match="at least"):
        tune.candidates(codec, lab.parse_link("geo"), 0.3)


def test_the_tuner_prefers_no_silence_and_obeys_latency_and_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def result(packet: float, **figures: float) -> lab.Result:
        usual = {"latency_s": 4.0, "encode_rtf": 0.1, "decode_rtf": 0.2, "log_mel": 0.8}
        usual |= {"wire_bits_per_s": 600.0, "silent_share": 0.0}
        trial = lab.Trial(SONG, Setting(packet=packet)).as_dict()
        return lab.Result(trial, f"packet {packet}", {**usual, **figures}, {}, {}, {})

    def chosen(results: list[lab.Result], **limits: float) -> str:
        return tune.best(grouped(results), **{"latency_s": 5.0, "cpu_factor": 1.0, **limits}).label

    plain, gaps = result(1), result(2, silent_share=0.01, log_mel=0.5)
    assert chosen([gaps, plain]) == "packet 1"
    assert chosen([plain, result(3, log_mel=0.7)]) == "packet 3"
    assert chosen([plain, result(4, wire_bits_per_s=500)]) == "packet 4"
    assert chosen([plain, result(5, wire_bits_per_s=500, latency_s=6)]) == "packet 1"
    with pytest.raises(tune.TuneError):
        chosen([plain], latency_s=3.0)
    with pytest.raises(tune.TuneError):
        chosen([plain], cpu_factor=5.0)


def test_the_tuner_writes_a_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_PACKETS", (48,))
    out = tmp_path / "preset.ini"
    tune.main(
        [str(SONG), "--codec", "fake", "--link", "geo", "--latency", "6", "--seconds", "20",
         "--jobs", "1", "--work", str(tmp_path / "work"), "--out", str(out)]
    )  # fmt: skip
    preset = configparser.ConfigParser()
    preset.read(out, encoding="utf-8")
    assert int(preset["server"]["packet-tokens"]) == 48
    assert float(preset["client"]["buffer"]) <= float(preset["client"]["most-buffer"])
    assert "latency" in capsys.readouterr().out


def test_the_example_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = ROOT / "benchmarks" / "lab" / "example.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 3
    (tmp_path / "notebook.py").write_text("\n".join(code), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(notebook.parents[2]))
    made = runpy.run_path(str(tmp_path / "notebook.py"), {"JOBS": 1})
    assert all(not result.problem for result in made["results"])
    assert Path(made["page"]).is_file()
    assert "latency" in capsys.readouterr().out
