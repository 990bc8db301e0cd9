"""λ as a function of the step: exact ends, exact time reversal, segments that leave no gap."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemdriver.contract.schedule import SHAPES, Schedule, linear, poly9, shape, table
from alchemdriver.errors import InputError

schedules = st.builds(
    Schedule,
    shape=st.sampled_from(list(SHAPES.values())),
    equilibrate=st.integers(0, 40),
    switch=st.integers(1, 300),
    cycles=st.integers(1, 4),
)


def steps(segment):
    return range(segment.start, segment.stop + 1)


@settings(deadline=None)
@given(schedules)
def test_the_way_back_is_the_way_out_reversed_in_time(s):
    """λ_back(τ) = λ_fwd(1 − τ), digit for digit, at every step of every cycle."""
    halves = list(s.segments())
    for out, back in zip(halves[1::4], halves[3::4], strict=True):
        assert [s.at(k) for k in steps(back)] == [s.at(k) for k in steps(out)][::-1]


@settings(deadline=None)
@given(schedules)
def test_switches_begin_and_end_exactly_at_the_ends(s):
    for segment in s.segments():
        ends = {"hold0": (0, 0), "forward": (0, 1), "hold1": (1, 1), "backward": (1, 0)}
        assert (s.at(segment.start), s.at(segment.stop)) == ends[segment.kind]
        if segment.kind.startswith("hold"):
            assert {s.at(k) for k in steps(segment)} == {float(segment.kind[-1])}


@settings(deadline=None)
@given(schedules)
def test_a_switch_never_turns_round(s):
    for segment in s.segments():
        lam = np.array([s.at(k) for k in steps(segment)])
        direction = -1.0 if segment.kind == "backward" else 1.0
        assert (direction * np.diff(lam) >= 0).all()
        assert lam.min() >= 0.0
        assert lam.max() <= 1.0


def test_rounding_does_not_carry_lambda_past_an_end():
    """Near τ = 1 the polynomial is 1 + 2e-14 by rounding, and no λ beyond the ends is a state."""
    s = Schedule(poly9, 0, 1147, 1)
    assert poly9(1146 / 1147) > 1.0
    assert max(s.at(k) for k in range(s.total_steps + 1)) == 1.0


@settings(deadline=None)
@given(schedules)
def test_segments_cover_every_step_once(s):
    segments = list(s.segments())
    assert len(segments) == 4 * s.cycles
    assert segments[0].start == 0
    assert segments[-1].stop == s.total_steps
    assert [x.stop for x in segments[:-1]] == [x.start for x in segments[1:]]
    assert s.total_steps == s.cycles * 2 * (s.equilibrate + s.switch)
    assert [x.cycle for x in segments] == [c for c in range(s.cycles) for _ in range(4)]
    assert s.label(s.total_steps) == "done"
    assert s.label(0) == ("hold0" if s.equilibrate else "forward")


@settings(deadline=None)
@given(schedules)
def test_a_step_is_called_after_its_segment(s):
    for segment in s.segments():  # holds may have no step
        assert {s.label(k) for k in range(segment.start, segment.stop)} <= {segment.kind}
    assert [s.label(k) for k in (-1, s.total_steps)] == ["done", "done"]


def test_a_step_of_a_very_long_run_is_called_at_once():
    began = time.perf_counter()
    assert Schedule(linear, 3, 5, 10**6).label(16 * 10**6 - 1) == "backward"
    assert time.perf_counter() - began < 1.0


@settings(deadline=None)
@given(schedules, st.integers(0, 1000))
def test_lambda_stays_at_zero_after_the_last_cycle(s, more):
    assert s.at(s.total_steps + more) == 0.0


def test_poly9_is_equation_17():
    tau = np.linspace(0, 1, 101)
    expected = 70 * tau**9 - 315 * tau**8 + 540 * tau**7 - 420 * tau**6 + 126 * tau**5
    assert np.allclose([poly9(t) for t in tau], expected, atol=1e-13)
    assert (poly9(0.0), poly9(0.5), poly9(1.0)) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_poly9_has_four_vanishing_derivatives_at_the_ends(end):
    """λ(end ± h) − λ(end) falls as h⁵: ten times closer is a hundred thousand times smaller."""
    away = [abs(poly9(abs(end - h)) - end) for h in (1e-1, 1e-2)]
    assert away[0] / away[1] == pytest.approx(1e5, rel=0.5)


def test_linear_is_linear():
    s = Schedule(linear, 0, 4, 1)
    assert [s.at(k) for k in range(9)] == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]


def test_a_table_is_interpolated_and_reversed(tmp_path):
    (tmp_path / "slow.dat").write_text("# tau lambda\n0 0\n0.5 0.2\n1 1\n")
    s = Schedule(shape("slow.dat", tmp_path), 1, 4, 1)
    expected = [0, 0, 0.1, 0.2, 0.6, 1, 1, 0.6, 0.2, 0.1, 0]
    assert [s.at(k) for k in range(11)] == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 0\n",
        "0 0 0\n1 1 1\n",
        "0 0\n0.5 0.5\n0.5 0.6\n1 1\n",
        "0 0.1\n1 1\n",
        "0.1 0\n1 1\n",
        "0 0\n1 0.9\n",
        "0 0\n0.3 -0.1\n1 1\n",
        "0 0\n0.3 1.1\n1 1\n",
        "0 0\n0.3 nan\n1 1\n",
        "zero one\n",
        "\0\0",
    ],
)
def test_a_table_that_is_no_path_from_0_to_1_is_refused(tmp_path, text):
    (tmp_path / "t.dat").write_text(text)
    with pytest.raises(InputError):
        table(tmp_path / "t.dat")


@pytest.mark.parametrize("lengths", [(-1, 5, 1), (0, 0, 1), (0, 5, 0)])
def test_lengths_that_make_no_schedule_are_refused(lengths):
    with pytest.raises(InputError, match="a schedule needs"):
        Schedule(linear, *lengths)


def test_a_misspelt_shape_gets_a_suggestion(tmp_path):
    with pytest.raises(InputError, match="did you mean 'poly9'"):
        shape("ploy9", tmp_path)
