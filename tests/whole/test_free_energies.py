"""The committed vacancies and cycle (``benchmarks/free_energies.json``), judged afresh.

Works and terms are the data; estimates, differences and errors are computed here once more, by
eqs. 12 and 13 as they stand in the paper.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alchemdriver.analysis import analyze_works

RESULT = Path(__file__).parents[2] / "benchmarks" / "free_energies.json"
WORKFLOWS = json.loads(RESULT.read_text())["workflows"]
VACANCIES = [
    (atoms, kelvin, f"iron-{atoms}-{kelvin}K") for kelvin in (100, 300) for atoms in (54, 64)
]
LIMIT_SIGMA = {"G_v": 0.010, "ΔΔG": 0.005}  # eV, of the difference; per vacancy, formula unit


def total(workflow: dict, name: str) -> tuple[float, float]:
    """BAR of all works plus the terms of a stage, and its stated error, eV."""
    runs = workflow["works_eV"][name]
    forward, backward = ([w for r in runs for w in r[k]] for k in ("forward", "backward"))
    kelvin = workflow["settings"]["temperatures_K"][0]
    found = analyze_works(forward, backward, kelvin, chains=[len(r["forward"]) for r in runs])
    terms = sum(t["value"] for t in workflow["stages"][name]["terms"])
    return found.bar.value + terms, found.bar.se


def agree(first: dict[str, float], second: dict[str, float], workflow: dict, limit: float) -> None:
    """Two sums of stages, by their coefficients, within 2 SE; shared stages cancel."""
    stages = {name: total(workflow, name) for name in first.keys() | second.keys()}
    weights = {k: first.get(k, 0.0) - second.get(k, 0.0) for k in stages}
    difference = sum(w * stages[k][0] for k, w in weights.items())
    sigma = np.sqrt(sum((w * stages[k][1]) ** 2 for k, w in weights.items()))
    assert sigma <= limit
    assert abs(difference) <= 2.0 * sigma, (difference, sigma)


@pytest.mark.parametrize(("atoms", "kelvin", "name"), VACANCIES)
def test_both_routes_to_the_iron_vacancy_agree(atoms, kelvin, name):
    """Within 2 σ, σ ≤ 10 meV, in an odd and an even cell: eq. 12 against eq. 21."""
    workflow = WORKFLOWS[name]
    assert workflow["settings"]["crystals"]["crystal"]["n_ws"] == atoms
    perfect, defect, path = (
        f"{kelvin}K/{stage}"
        for stage in ("04-frenkel-ladd", "07-frenkel-ladd-defect", "08-alchemical")
    )
    agree(
        {defect: 1.0, perfect: -(atoms - 1) / atoms},
        {path: 1.0, perfect: 1.0 / atoms},
        workflow,
        LIMIT_SIGMA["G_v"],
    )


@pytest.mark.parametrize("name", ["gamma-delta-100K", "gamma-delta-100K-four-replicas"])
def test_the_cycle_of_two_phases_closes(name):
    """Pb → Sn in γ and δ at 100 K: ΔΔG by the paths against four Frenkel–Ladd calculations."""
    workflow = WORKFLOWS[name]
    units = {k: v["formula_units"] for k, v in workflow["settings"]["crystals"].items()}
    springs, paths = {}, {}
    for phase, sign in (("gamma", -1.0), ("delta", 1.0)):
        springs[f"{phase}/100K/08-frenkel-ladd"] = sign / units[phase]
        springs[f"{phase}/100K/04-frenkel-ladd"] = -sign / units[phase]
        paths[f"{phase}/100K/09-alchemical"] = sign / units[phase]
    agree(springs, paths, workflow, LIMIT_SIGMA["ΔΔG"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_stored_totals_follow_from_the_stored_works(name):
    workflow = WORKFLOWS[name]
    for stage, stored in workflow["stages"].items():
        value, se = total(workflow, stage)
        assert (value, se) == pytest.approx((stored["value"], stored["se"]), abs=1e-6)
    seeds = [r["seed"] for runs in workflow["works_eV"].values() for r in runs]
    assert len(set(seeds)) == len(seeds)
