"""The load of listeners is honest: it counts what arrives, and what does not."""

from __future__ import annotations

import json
from array import array

import pytest

from benchmarks import fanout
from benchmarks.crowd import Arrivals, lateness
from benchmarks.fanout_load import frames, masked


def test_frames_are_cut_out_wherever_reads_end():
    stream = b"\x82\x03abc" + b"\x81\x7e\x00\x80" + b"x" * 128 + b"\x89\x00"
    wanted = [(2, b"abc"), (1, b"x" * 128), (9, b"")]
    for cut in range(len(stream) + 1):
        first, rest = frames(stream[:cut])
        second, left = frames(rest + stream[cut:])
        assert [*first, *second] == wanted
        assert left == b""
    with pytest.raises(ValueError, match="as long as that"):
        frames(b"\x82\x7f" + bytes(8))


def test_frames_of_clients_are_masked_with_what_changes_nothing():
    assert masked(1, b"ab") == b"\x81\x82\0\0\0\0ab"
    assert masked(2, b"x" * 300)[:8] == b"\x82\xfe\x01\x2c\0\0\0\0"


def test_a_few_listeners_are_measured_and_none_is_dropped(capsys):
    arguments = ["--listeners", "6", "--seconds", "3", "--joins-per-s", "50", "--json"]
    assert fanout.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["listeners"], result["dropped"], result["stuck"]) == (6, 0, 1)
    assert result["delivered"] == 6 * result["packets"] > 0
    assert 0 <= result["p50_ms"] <= result["p99_ms"] <= result["most_ms"]
    assert result["server_cpu_s"] > 0
    assert {"rss_per_listener_bytes", "joins_per_s", "load_cpu_s"} <= set(result)


def test_a_listener_that_missed_a_packet_counts_as_dropped():
    rows = [(0, 5, 10.5), (1, 5, 10.6), (0, 6, 11.5), (0, 7, 12.5)]
    numbers, packets = (array("i", [int(row[n]) for row in rows]) for n in (0, 1))
    times_s = array("d", [row[2] for row in rows])
    arrivals = Arrivals(2, numbers, packets, times_s, 0.0, 1.0, array("d"))
    late_s, complete = lateness([arrivals], {5: 10.0, 6: 11.0, 7: 12.0}, range(5, 7))
    assert complete == 1
    assert late_s == pytest.approx([0.5, 0.6, 0.5])


def test_the_curve_becomes_a_picture(tmp_path):
    point = {"seconds": 1.0, "server_cpu_s": 0.1, "p50_ms": 1.0, "p99_ms": 2.0}
    fanout.plot([{"listeners": n, **point} for n in (10, 100)], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_too_few_files_are_said_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr("resource.getrlimit", lambda which: (1000, 1000))
    monkeypatch.setattr("resource.setrlimit", lambda which, limits: None)
    with pytest.raises(SystemExit) as ended:
        fanout.main(["--listeners", "10", "5000"])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "5256 open files are needed, and 1000 are allowed" in told.err
