"""Constant volume against constant pressure: the term against quadrature, the estimators against
known Gaussians, a short real i-PI, and the rows of a workflow.

Long runs: ``python -m campaigns.finite_cell``, judged at the end of this file.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from campaigns import finite_cell as campaign
from helpers import direct
from helpers import exact_cell as exact
from helpers.stored_results import finish
from scipy.signal import lfilter

from alchemdriver import units
from alchemdriver.analysis import analyze_workflow, workflow_summary
from alchemdriver.analysis.corrections.finite_cell import fluctuations_of, term_between
from alchemdriver.analysis.estimators.cell import CellFluctuations, from_strain, from_stress
from alchemdriver.contract import manifest
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xyz import write_xyz
from alchemdriver.errors import AnalysisError
from alchemdriver.paths import formulas
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import plan

T = 300.0
TRIANGLE = np.triu_indices(3)
TOTALS = {  # stage: total, SE, eV; both routes agree
    "300K/04-frenkel-ladd": (-430.0, 0.006),
    "300K/07-frenkel-ladd-defect": (-412.5, 0.008),
    "300K/08-alchemical": (17.5, 0.003),
}


# --- the formula --------------------------------------------------------------------------------


@pytest.mark.parametrize(("flexible", "leading"), [(False, -5.2), (True, -32.5)])
def test_the_term_is_what_partition_functions_differ_by(flexible, leading):
    """300 K, 50 kbar: ½ kT ln(2/3) a mode, and kT ln of the lengths where the cell is flexible."""
    t, p = 300.0, 5e4
    ends = [exact._end(t, p, flexible, k) for k in (1.0, exact.SOFTER)]
    found = [
        formulas.finite_cell(t, np.linalg.slogdet(c)[1], 0.0, h.T, flexible)[0]
        for _, h, c, _ in ends
    ]
    known = exact.change(t, p, flexible)
    assert 1e3 * known.difference == pytest.approx(leading, abs=0.06)
    assert found[1] - found[0] == pytest.approx(known.difference, abs=1e-5)  # next order in kT
    if flexible:  # i-PI's measure is in it
        lengths = [h[1, 1] * h[2, 2] ** 2 for _, h, _, _ in ends]
        assert kT(t) * abs(np.log(lengths[1] / lengths[0])) > 3e-4


# --- the estimators -----------------------------------------------------------------------------


def cells_of(strain: np.ndarray) -> np.ndarray:
    """Cells of a cube of 4 Å, rows the lattice vectors, of strains (n, 6) or (n, 1)."""
    if strain.shape[1] == 1:
        return 4.0 * np.cbrt(1.0 + strain)[:, :, None] * np.eye(3)
    h = np.tile(4.0 * np.eye(3), (len(strain), 1, 1))
    h[:, TRIANGLE[0], TRIANGLE[1]] += 4.0 * strain
    return h.transpose(0, 2, 1)


@pytest.mark.parametrize(
    ("modes", "rows", "tau", "period"), [(6, 100, 0, 0), (6, 1000, 5, 0), (1, 500, 10, 40)]
)
def test_covariance_from_few_frames_has_little_bias_and_knows_its_error(modes, rows, tau, period):
    """Six modes, a hundred independent frames: raw, ln det S is 0.27 too low, 3.5 meV at 300 K."""
    rng, off, se, raw = np.random.default_rng(5), [], [], []
    for _ in range(150):
        noise = rng.normal(size=(2, rows + 20 * tau, modes)) * [[[1.0]], [[1.0j]]]
        decay = np.exp(-1.0 / tau + 2j * np.pi / period) if period else np.exp(-1.0 / (tau or 1e-9))
        z = lfilter([1], [1, -decay], noise.sum(axis=0), axis=0).real[-rows:]
        z *= 1e-3 * np.sqrt(1 - abs(decay) ** 2)
        found = from_strain(cells_of(z), "flexible" if modes == 6 else "isotropic")
        off.append(found.log_det - modes * np.log(1e-6))
        se.append(found.log_det_se)
        raw.append(
            np.linalg.slogdet(np.cov(z.T, bias=True).reshape(modes, modes))[1]
            - np.log(1e-6) * modes
        )
    spread = np.std(off)
    # most of Wishart's bias is gone; for one mode there is little of it
    assert abs(np.mean(off)) < max(0.6 * abs(np.mean(raw)), 0.25 * spread)
    assert 0.8 * spread < np.mean(se) < 1.2 * spread
    assert np.mean(np.abs(off) < 1.96 * np.array(se)) > 0.87


@pytest.mark.parametrize("modes", [1, 6])
def test_stiffness_from_the_stress_needs_few_rows(modes):
    """σ = P − K ε/V + noise, of 300 K and a stiffness of 300 eV: the covariance is kT K⁻¹."""
    rng, kt = np.random.default_rng(2), kT(300.0)
    root = np.eye(modes) + 0.2 * rng.normal(size=(modes, modes))
    k = 300.0 * root @ root.T
    strain = rng.normal(size=(400, modes)) @ np.linalg.cholesky(kt * np.linalg.inv(k)).T
    cells, pressure = cells_of(strain), 0.01
    slope = strain @ k + 8 * kt * rng.normal(size=(400, modes))
    volume = np.linalg.det(cells)
    if modes == 1:
        stress = (pressure - slope / volume.mean())[:, :, None] * np.eye(3)
    else:
        upper = np.zeros((400, 3, 3))
        upper[:, TRIANGLE[0], TRIANGLE[1]] = -slope
        full = upper + np.triu(upper, 1).transpose(0, 2, 1)
        stress = pressure * np.eye(3) + full / volume[:, None, None]
    found = from_stress(cells, stress, pressure, kt, "flexible" if modes == 6 else "isotropic")
    exact_log = modes * np.log(kt) - np.linalg.slogdet(k)[1]
    assert found.log_det_se < 0.06
    assert found.log_det == pytest.approx(exact_log, abs=3.5 * found.log_det_se)


def test_what_cannot_be_told_is_refused():
    z = np.random.default_rng(0).normal(size=(30, 6)) * 1e-3
    with pytest.raises(AnalysisError, match="at least 12 are needed for 6 modes: run longer"):
        from_strain(cells_of(np.repeat(z[:6], 5, axis=0)), "flexible")
    with pytest.raises(AnalysisError, match="expected a barostat that is isotropic or flexible"):
        from_strain(cells_of(z), "anisotropic")
    ends = [CellFluctuations(b, 4 * np.eye(3), -9.0, 0.1, "") for b in ("isotropic", "flexible")]
    with pytest.raises(AnalysisError, match="different barostats"):
        term_between(300.0, *ends)


# --- real i-PI ----------------------------------------------------------------------------------


def test_a_short_run_of_i_pi_has_the_exact_term(tmp_path):
    """800 steps of each end of a flexible cell; the term is 2 meV per atom."""
    case = replace(campaign.CASES["flexible-300K"], steps=800)
    ends = []
    for lam in (0, 1):
        folder = campaign.write_input(tmp_path / str(lam), case, lam, seed=1)
        text = (folder / "input.xml").read_text()
        text = campaign.replace_once(text, '<properties stride="10"', '<properties stride="3"')
        (folder / "input.xml").write_text(text)
        direct.run(folder)
        ends.append(fluctuations_of(read_input(folder)))
    found = term_between(300.0, *ends)
    known = exact.change(300.0, case.pressure, True).difference
    n = len(exact.structure())
    assert 1e3 * found.se / n < 0.06
    assert found.value == pytest.approx(known, abs=4 * found.se)


# --- a workflow ---------------------------------------------------------------------------------


def pretend_npt(folder, stiffness: float, seed: int) -> None:
    """An isotropic run.out of known stiffness (eV), as i-PI prints it."""
    run = read_input(folder)
    rng, n, v0 = np.random.default_rng(seed), 400, np.linalg.det(run.structure.cell)
    x = rng.normal(size=n) * np.sqrt(kT(T) / stiffness)
    pressure = run.pressure - stiffness * x / v0 / units.BAR_EV_PER_ANGSTROM3
    lines = ["# column   1     --> step", "# column   2     --> volume{angstrom3}"]
    lines.append("# column   3     --> pressure_md{bar}")
    lines += [
        f"{k} {v:.12e} {p:.12e}"
        for k, (v, p) in enumerate(zip(v0 * (1 + x), pressure, strict=True))
    ]
    run.output("out").write_text("\n".join(lines) + "\n")


def test_the_routes_of_a_workflow_are_compared_with_the_term(tmp_path):
    common = plan.Common(
        model="demo-fe", temperatures_K=(T,), pressure_bar=1.0, timestep_fs=2.0, replicas=2
    )
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(3)
    iron = Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))
    workflow = plan.prepare_vacancy(iron, [0], tmp_path / "w", common)
    finish(workflow, TOTALS)
    before = analyze_workflow(workflow.root)
    assert before.agreements[0].finite_cell.value is None
    assert any("without the finite-cell term" in w for w in before.warnings)
    for name, stiffness, kept in (("02-npt", 900.0, 54), ("06-npt-defect", 600.0, 53)):
        folder = workflow.root / f"{T:g}K" / name
        positions = iron.positions[:kept]
        crystal = replace(iron, symbols=iron.symbols[:kept], positions=positions)
        write_xyz(folder / "start.xyz", crystal)
        pretend_npt(folder, stiffness, seed=kept)
    stage = workflow.stage(f"{T:g}K/08-alchemical")
    for path in stage.inputs(workflow.root):  # as fed: the barostat is read from there
        write_xyz(path.parent / "start.xyz", iron)
        path.write_text(path.read_text().replace("schedule:", "tether: 5.0, schedule:"))
    manifest.mark_done(workflow, stage, 10, {})
    result = analyze_workflow(workflow.root)
    (agreement,) = result.agreements
    term = 0.5 * kT(T) * np.log(600.0 / 900.0)
    assert agreement.finite_cell.value == pytest.approx(term, rel=1e-2)
    assert agreement.difference == pytest.approx(term, rel=1e-2)  # the stages were made to agree
    direct_row, path_row = (
        next(r for r in result.rows if (r.quantity, r.route) == ("G_v", route))
        for route in ("Frenkel–Ladd", "alchemical")
    )
    assert direct_row.finite_cell == path_row.finite_cell
    assert "constant volume" in workflow_summary(result)


# --- the committed campaign ---------------------------------------------------------------------


def test_committed_runs_have_the_exact_term():
    if not campaign.RESULT.is_file():
        pytest.skip("python -m campaigns.finite_cell FOLDER has not been run")
    cases = json.loads(campaign.RESULT.read_text())["cases"]
    assert list(cases) == list(campaign.CASES)
    for name, data in cases.items():
        case = campaign.CASES[name]
        assert data["settings"] | {"seeds": tuple(data["settings"]["seeds"])} == vars(case)
        for row in campaign.rows(data):
            assert row.passed, row
