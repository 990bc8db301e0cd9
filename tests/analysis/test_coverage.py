"""Stated errors cover, in short: benchmarks/coverage.json has the whole table.

Of 200 repetitions a fraction p is uncertain by √(p (1 − p)/200): 3.3 % at 68 %, 1.5 % at 95 %.
About 2.5 times that is allowed beyond the targets (64 to 74, 93 to 97 %).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import coverage as c

TABLE = Path(__file__).parents[2] / "benchmarks" / "coverage.json"
R = 200


def covers(found: c.Found, one=(0.64, 0.74), both=(0.93, 0.97)) -> None:
    assert one[0] - 0.08 <= found.one_sigma <= one[1] + 0.08
    assert both[0] - 0.04 <= found.ninety_five <= min(1.0, both[1] + 0.03)


@pytest.mark.parametrize("chains", [[10], [4] * 4, [1] * 10])
def test_clean_works_cover_and_raise_no_alarm(chains):
    rng = np.random.default_rng(1)
    found = c.works_case(c.gaussian(rng, (R, sum(chains)), 1.0), chains, 60)
    covers(found["eq. 11"])
    covers(found["BAR"])
    assert found["warned"] <= 0.10 + 0.10  # 60 looks: ± 4 %


def test_few_pairs_cover_at_least_nine_in_ten():
    for w in (0.5, 4.0):
        found = c.works_case(c.gaussian(np.random.default_rng(2), (R, 4), w), [4], 0)
        for name in ("eq. 11", "BAR"):
            covers(found[name], (0.64, 0.8), (0.92, 1.0))


def test_four_kT_by_bar_and_skewed_works():
    rng = np.random.default_rng(3)
    covers(c.works_case(c.gaussian(rng, (R, 10), 4.0), [10], 0)["BAR"])
    covers(c.works_case(c.gamma(rng, (R, 10), 2.0), [10], 0)["BAR"])


@pytest.mark.parametrize("what", ["offsets", "AR(1) 0.6", "anticorrelated", "starts"])
def test_four_replicas_cover_whatever_their_cycles_share(what):
    rng, chains = np.random.default_rng(4), [4] * 4
    works = {
        "offsets": lambda: c.offset(rng, R, chains, 1.0),
        "AR(1) 0.6": lambda: c.autoregressive(rng, R, chains, 1.0, 0.6),
        "anticorrelated": lambda: c.gaussian(rng, (R, 16), 1.0, -0.7),
        "starts": lambda: c.offset(rng, R, chains, 1.0, 0.5),
    }[what]()
    found = c.works_case(works, chains, 0)
    covers(found["eq. 11"])
    covers(found["BAR"])
    assert found["says"] == "standard error over 4 replicas"


def test_one_chain_says_what_it_cannot_tell():
    rng = np.random.default_rng(5)
    found = c.works_case(c.autoregressive(rng, R, [20], 1.0, 0.3), [20], 0)
    covers(found["eq. 11"], (0.60, 0.74), (0.91, 0.97))
    assert "cannot be told from 20 pairs" in found["says"]


def test_high_dissipation_is_warned_of():
    rng = np.random.default_rng(6)
    for make in (c.gaussian, c.gamma):
        assert c.works_case(make(rng, (40, 10), 9.0), [10], 40)["warned"] >= 0.9


def test_stages_add_their_errors():
    covers(c.stages_case(np.random.default_rng(7), R, [4] * 4, 1.0)["total"])


def test_windows_cover():
    found = c.windows_case(np.random.default_rng(8), 50, 1000, 0.9, multistate=False)
    for name in ("TI", "mass leg"):
        covers(found[name], (0.55, 0.80), (0.88, 1.0))


def test_the_table_is_of_these_cases_and_repetitions():
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert table["repetitions"] >= 4000
    known = {(group, name) for group, name, _ in c.cases()}
    assert {(g, n) for g, rows in table["cases"].items() for n in rows} == known
