"""The play-out control against simulated links and clocks: days in seconds, no waiting."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from benchmarks.lab.lossy import LossyLink
from streaming.receive.reserve import COARSE, FINE, LiveEdge, ReserveControl
from streaming.wire.messages import Tokens

PACKET = 48
PACKET_S = PACKET / 25


@dataclass
class Run:
    """What a simulated listener did: at each packet its time, reserve, target and speed."""

    times: list[float] = field(default_factory=list)
    reserves: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    underruns: list[float] = field(default_factory=list)

    def after(self, hours: float, name: str) -> np.ndarray:
        values: list[float] = getattr(self, name)
        return np.array(values)[np.array(self.times) > 3600 * hours]


def simulate(
    control: ReserveControl,
    hours: float,
    *,
    ppm: float = 0.0,
    link: LossyLink | None = None,
    outages: tuple[tuple[float, float], ...] = (),
    start_reserve_s: float = 0.5,
) -> Run:
    """Play for ``hours`` on a sound card whose clock is ``ppm`` faster than the sender's.

    outages: begin and end in seconds; packets of that time arrive at its end.
    """
    run = Run()
    token = np.zeros(PACKET, np.int64)
    count = math.ceil(hours * 3600 / PACKET_S)
    sent = (((k + 1) * PACKET_S, Tokens(k * PACKET, token)) for k in range(count))
    now_s, received_s, heard_s = 0.0, 0.0, -start_reserve_s - PACKET_S
    for at_s, packet in (link or LossyLink()).deliver(sent):
        for begin_s, end_s in outages:
            if begin_s <= at_s < end_s:
                at_s = end_s
        at_s = max(at_s, now_s)
        heard_s += (at_s - now_s) * (1 + ppm / 1e6) * control.speed
        if heard_s > received_s:
            heard_s = received_s  # it waits
            run.underruns.append(at_s)
        now_s = at_s
        reserve_s = received_s - heard_s
        received_s = packet.end_token / 25
        control.arrived(received_s, reserve_s, now_s)
        run.times.append(now_s)
        run.reserves.append(reserve_s)
        run.smoothed.append(control.reserve_s or 0.0)
        run.targets.append(control.target_s)
        run.speeds.append(control.speed)
    return run


@pytest.mark.parametrize("ppm", [-100, 100, 37])
@pytest.mark.parametrize("jitter_s", [0.0, 0.02])
def test_a_day_of_clocks_that_differ_leaves_the_buffer_at_its_target(ppm, jitter_s):
    control = ReserveControl(0.5, 8.0)
    run = simulate(control, 24, ppm=ppm, link=LossyLink(jitter_s=jitter_s))
    assert run.underruns == []
    ratio = run.after(0, "smoothed") / run.after(0, "targets")
    assert ratio.min() > 0.8
    assert ratio.max() < 1.2
    assert np.abs(np.array(run.speeds) - 1).max() < 0.001  # of pitch
    # Speed and drift settle on the difference of the clocks.
    assert control.drift == pytest.approx(-ppm / 1e6, abs=2e-5)


def test_without_control_the_same_day_runs_dry():
    control = ReserveControl()
    control.arrived = lambda *_: 1.0  # type: ignore[method-assign]
    assert simulate(control, 24, ppm=100).underruns


def test_the_target_follows_the_jitter_between_its_bounds():
    calm = ReserveControl(0.5, 8.0)
    simulate(calm, 1, link=LossyLink(jitter_s=0.01))
    assert calm.target_s == 0.5
    uneven = ReserveControl(0.5, 8.0)
    run = simulate(uneven, 1, link=LossyLink(jitter_s=0.5))
    assert 1.5 < np.median(run.after(0.2, "targets")) < 5
    late = run.after(0.3, "reserves")
    assert np.mean(late <= 0) < 0.01
    wild = ReserveControl(0.5, 3.0)
    simulate(wild, 1, link=LossyLink(jitter_s=5.0))
    assert wild.target_s == 3.0


def test_the_reserve_grows_before_the_next_late_packet_and_shrinks_when_calm_returns():
    control = ReserveControl(0.5, 8.0)
    chance = random.Random(1)
    now, received, heard = 0.0, 0.0, -2.42
    targets = []
    for k in range(6000):
        at = max(now, (k + 1) * PACKET_S + (chance.expovariate(2.0) if 1000 < k < 2000 else 0.0))
        heard = min(received, heard + (at - now) * control.speed)
        now, reserve, received = at, received - heard, (k + 1) * PACKET_S
        control.arrived(received, reserve, now)
        targets.append((control.target_s, control.reserve_s or 0.0))
    assert targets[1999][0] > 1.5
    assert targets[1999][1] > 1.5
    assert targets[-1][0] == 0.5
    assert targets[-1][1] == pytest.approx(0.5, abs=0.1)


def test_what_an_outage_added_is_taken_back_at_one_percent():
    control = ReserveControl(0.5, 8.0)
    run = simulate(control, 2, outages=((1000.0, 1020.0),))
    assert len(run.underruns) == 1
    speeds = np.array(run.speeds)
    assert speeds.max() == pytest.approx(1 + COARSE)
    after = run.after(1100 / 3600, "smoothed")
    assert after[0] > 10
    back = np.array(run.times)[np.argmax((np.array(run.times) > 1100) & (speeds < 1 + FINE))]
    assert 20 / COARSE * 0.7 < back - 1020 < 20 / COARSE * 1.5
    assert run.after(1.5, "smoothed") == pytest.approx(0.5, abs=0.1)


def test_who_wants_to_stay_behind_does_and_no_further():
    control = ReserveControl(0.5, 8.0, catch_up=False)
    run = simulate(control, 6, ppm=50, outages=((5000.0, 5060.0),))
    after = run.after(2, "reserves")
    assert after.min() > 55
    assert np.ptp(after) < 0.5  # the difference of the clocks is made up for all the same
    assert np.abs(run.after(2, "speeds") - 1).max() <= FINE


def test_a_new_beginning_keeps_what_is_known_of_the_clocks():
    control = ReserveControl()
    simulate(control, 3, ppm=100)
    control.restart()
    assert control.reserve_s is None
    assert control.speed == 1 + control.drift
    assert control.drift == pytest.approx(-1e-4, abs=1e-5)


def test_a_most_below_the_least_is_the_least():
    assert ReserveControl(2.0, 1.0).most_s == 2.0


def test_live_edge_goes_on_with_time_and_trusts_the_earliest_arrival() -> None:
    edge = LiveEdge()
    assert edge.position_s(0.0) is None
    assert edge.latency_s(0.0, 0.0) is None
    edge.arrived(250, 100.0, delay_s=0.5, age_s=1.0)
    assert edge.position_s(100.0) == pytest.approx(11.5)
    assert edge.position_s(103.0) == pytest.approx(14.5)
    edge.arrived(298, 104.0, delay_s=0.5)  # 3 s late: says less than is known
    assert edge.position_s(104.0) == pytest.approx(15.5)
    edge.arrived(346, 104.5, delay_s=0.5)  # 12.92 + 0.5 + 1.92: the old one still wins
    assert edge.latency_s(10.0, 104.5) == pytest.approx(6.0)
    edge.arrived(500, 105.0, delay_s=0.5)
    assert edge.position_s(105.0) == pytest.approx(20.5)


def test_live_edge_forgets_estimates_older_than_a_minute() -> None:
    edge = LiveEdge()
    edge.arrived(25, 0.0, delay_s=10.0)
    edge.arrived(50, 1.0, delay_s=0.0)
    assert edge.position_s(60.0) == pytest.approx(71.0)
    edge.arrived(25 * 61, 61.0, delay_s=0.0)
    assert edge.position_s(61.0) == pytest.approx(61.0 + 1.0)
    edge.arrived(25 * 63, 63.0, delay_s=0.0)
    assert edge.position_s(63.0) == pytest.approx(63.0)


def test_live_edge_memory_is_bounded_by_a_minute_of_packets() -> None:
    edge = LiveEdge()
    for packet in range(10_000):  # a clock that drifts: every lead is less than the one before
        edge.arrived(packet, packet / 25 + packet * 1e-6, delay_s=0.0)
    assert len(edge._leads) <= 60 * 25 + 2
