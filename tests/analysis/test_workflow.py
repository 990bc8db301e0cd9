"""From the totals of stages to G, G_v, ΔG and ΔΔG, on numbers whose answer is known.

Stages are written as if they had been run: the total of each is the free energy, or the
difference of two, that the stage stands for.  No simulation takes part.
"""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk
from helpers.stored_results import finish
from scipy import stats

from alchemdriver.analysis import analyze_workflow
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import plan

T = 300.0
G = {"perfect": -430.0, "defect": -412.5}  # eV, whole cells
SE = {"perfect": 0.006, "defect": 0.008, "path": 0.003}
VACANCY = {  # stage: total, SE
    "300K/04-frenkel-ladd": (G["perfect"], SE["perfect"]),
    "300K/07-frenkel-ladd-defect": (G["defect"], SE["defect"]),
    "300K/08-alchemical": (G["defect"] - G["perfect"], SE["path"]),
}
COMMON = {
    "temperatures_K": (T,),
    "pressure_bar": 1.0,
    "timestep_fs": 2.0,
    "replicas": 2,
}


def iron(repeat: int = 3) -> Structure:
    return structure(bulk("Fe", "bcc", a=2.83, cubic=True).repeat(repeat))


def perovskite(repeat: int = 2, a: float = 6.3) -> Structure:
    sites = [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    return structure(
        ase.Atoms("CsPbI3", scaled_positions=sites, cell=[a] * 3, pbc=True).repeat(repeat)
    )


def structure(atoms: ase.Atoms) -> Structure:
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


def rows(workflow) -> dict:
    return {(r.quantity, r.route, r.phase): r for r in analyze_workflow(workflow.root).rows}


@pytest.mark.parametrize("sites", [[7], [0, 7, 20]])
def test_vacancies_of_an_element_are_eq_12_by_both_routes(tmp_path, sites):
    """G_v = G_defect − (N − n)/N G_perfect, n atoms removed."""
    workflow = plan.prepare_vacancy(
        iron(), sites, tmp_path / "w", plan.Common(model="demo-fe", **COMMON)
    )
    finish(workflow, VACANCY)
    found, n, size = rows(workflow), len(sites), 54
    expected = G["defect"] - (size - n) / size * G["perfect"]
    direct, path = found["G_v", "Frenkel–Ladd", ""], found["G_v", "alchemical", ""]
    assert direct.value == pytest.approx(expected, abs=1e-12)
    assert path.value == pytest.approx(expected, abs=1e-12)
    assert direct.unit == ("vacancy" if n == 1 else "defect of 3 vacancies")
    assert direct.se == pytest.approx(np.hypot(SE["defect"], (1 - n / size) * SE["perfect"]))
    assert path.se == pytest.approx(np.hypot(SE["path"], n / size * SE["perfect"]))
    assert found["G", "Frenkel–Ladd", ""].per_unit == pytest.approx(G["perfect"] / size)


def test_the_routes_are_compared_without_what_they_share(tmp_path):
    """μ = G_perfect/N cancels: the difference is G_defect − G_perfect by both, and so its error."""
    workflow = plan.prepare_vacancy(
        iron(), [0], tmp_path / "w", plan.Common(model="demo-fe", **COMMON)
    )
    off = 0.05
    finish(workflow, VACANCY | {"300K/07-frenkel-ladd-defect": (G["defect"] + off, SE["defect"])})
    result = analyze_workflow(workflow.root)
    (agreement,) = result.agreements
    assert agreement.difference == pytest.approx(off, abs=1e-9)  # Frenkel–Ladd minus alchemical
    assert agreement.se == pytest.approx(np.linalg.norm(list(SE.values())))
    assert any("the routes differ by +50.00" in w for w in result.warnings)
    assert result.configurational == {"300 K": pytest.approx(kT(T) * np.log(54))}


def test_the_error_of_a_stage_is_the_one_that_its_result_states(tmp_path):
    """One policy: nothing is made anew from the replicas; sums have Student's factor for what they
    rest on (Welch and Satterthwaite), 3 degrees of freedom each here."""
    import json

    workflow = plan.prepare_vacancy(
        iron(), [0], tmp_path / "w", plan.Common(model="demo-fe", **COMMON)
    )
    finish(workflow, VACANCY)
    for name in VACANCY:
        path = workflow.root / name / "result.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        result["over_replicas"]["se"] *= 100.0
        result["totals"][0]["dof"] = 3.0
        path.write_text(json.dumps(result), encoding="utf-8")
    result = analyze_workflow(workflow.root)
    for name, which in zip(VACANCY, ("perfect", "defect", "path"), strict=True):
        assert result.stages[name].se == SE[which]
    found = {(r.quantity, r.route): r for r in result.rows}
    assert found["G", "Frenkel–Ladd"].se == pytest.approx(SE["perfect"])
    assert found["G", "Frenkel–Ladd"].half95 == pytest.approx(
        SE["perfect"] * stats.t.ppf(0.975, 3) / stats.t.ppf(0.8413447, 3), rel=1e-6
    )
    v = np.square([SE["defect"], 53 / 54 * SE["perfect"]]) / stats.t.ppf(0.8413447, 3) ** 2
    dof = v.sum() ** 2 / np.sum(v**2 / 3)
    row = found["G_v", "Frenkel–Ladd"]
    assert row.se == pytest.approx(stats.t.ppf(0.8413447, dof) * np.sqrt(v.sum()), rel=1e-6)
    assert row.half95 == pytest.approx(stats.t.ppf(0.975, dof) * np.sqrt(v.sum()), rel=1e-6)


def test_a_vacancy_in_a_compound_uses_the_chemical_potentials_that_were_named(tmp_path):
    """G_v = G_defect − G_perfect + Σ μ; two iodine atoms and one of caesium."""
    crystal = perovskite()
    sites = [0, 2, 3]
    assert [crystal.symbols[i] for i in sites] == ["Cs", "I", "I"]
    mu = {"I": -1.5, "Cs": -0.9}
    workflow = plan.prepare_vacancy(
        crystal, sites, tmp_path / "w", plan.Common(model="demo", **COMMON), mu
    )
    finish(workflow, VACANCY)
    expected = G["defect"] - G["perfect"] + 2 * -1.5 + -0.9
    found = rows(workflow)
    for route, se in (
        ("Frenkel–Ladd", np.hypot(SE["defect"], SE["perfect"])),
        ("alchemical", SE["path"]),
    ):
        assert found["G_v", route, ""].value == pytest.approx(expected, abs=1e-12)
        assert found["G_v", route, ""].se == pytest.approx(se)


def test_the_cycle_is_second_minus_first_phase_per_formula_unit(tmp_path):
    """Two cells of different sizes; final minus initial, then second minus first: eq. 13."""
    phases = {"alpha": perovskite(2), "beta": perovskite(1, 6.5)}
    workflow = plan.prepare_transmute(
        phases, "Pb->Sn", tmp_path / "w", plan.Common(model="demo", **COMMON)
    )
    per_unit = {"alpha": (-14.0, -13.8), "beta": (-14.1, -13.85)}  # initial, final
    totals = {}
    for phase, units in (("alpha", 8), ("beta", 1)):
        initial, final = (units * x for x in per_unit[phase])
        totals |= {
            f"{phase}/300K/04-frenkel-ladd": (initial, 0.008 * units),
            f"{phase}/300K/08-frenkel-ladd": (final, 0.006 * units),
            f"{phase}/300K/09-alchemical": (final - initial, 0.001 * units),
        }
    finish(workflow, totals)
    found = rows(workflow)
    for route, se in (("Frenkel–Ladd", 0.010), ("alchemical", 0.001)):
        assert found["ΔG", route, "alpha"].per_unit == pytest.approx(0.2)
        assert found["ΔG", route, "beta"].per_unit == pytest.approx(0.25)
        cycle = found["ΔΔG", route, "beta − alpha"]
        assert cycle.value == pytest.approx(0.05)
        assert cycle.se == pytest.approx(np.sqrt(2) * se)
    closures = {a.quantity: a for a in analyze_workflow(workflow.root).agreements}
    assert closures["ΔΔG"].difference == pytest.approx(0.0, abs=1e-12)
    assert closures["ΔΔG"].se == pytest.approx(np.sqrt(2) * np.hypot(0.010, 0.001))
    # 10 evaluations a stage; of each phase 2 × (relax, NPT, NVT, switches) against 3 stages
    assert found["ΔΔG", "Frenkel–Ladd", "beta − alpha"].evaluations == 160
    assert found["ΔΔG", "alchemical", "beta − alpha"].evaluations == 60
    assert closures["ΔΔG"].efficiency == pytest.approx((0.010 / 0.001) ** 2 * 160 / 60)


def test_what_is_not_done_is_missing_and_the_rest_is_there(tmp_path):
    workflow = plan.prepare_vacancy(
        iron(), [0], tmp_path / "w", plan.Common(model="demo-fe", **COMMON)
    )
    finish(workflow, VACANCY)
    path = workflow.stage("300K/07-frenkel-ladd-defect").inputs(workflow.root)[0]
    path.write_text(path.read_text().replace("<seed>", "<seed>1"))
    result = analyze_workflow(workflow.root)
    assert [(r.quantity, r.route) for r in result.rows] == [
        ("G", "Frenkel–Ladd"),
        ("G_v", "alchemical"),
    ]
    assert result.missing == ("300K/07-frenkel-ladd-defect",)
    assert any("--from 300K/07-frenkel-ladd-defect" in w for w in result.warnings)
