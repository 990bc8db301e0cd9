"""The mass leg on kinetic energies that are known: no dynamics, files as i-PI writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import quantum_oscillator as qo

from alchemdriver import units
from alchemdriver.analysis.corrections.mass_leg import (
    integrated,
    leg_of,
    leg_warnings,
    mass_leg_in,
)
from alchemdriver.analysis.estimators.fixed_lambda import equilibrium_mean
from alchemdriver.contract.nodes import gauss_legendre
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError
from alchemdriver.prepare.mass_leg import leg_folder, write_points
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare

BEADS, K, ROWS = 6, 30.0, 401  # –, eV/Å², of each point
H, HE = qo.MASSES
LOG = np.log(HE / H)


@pytest.fixture
def leg(tmp_path):
    """leg(points): the folder of a switch of two atoms of four, H → He, and of its mass leg."""

    def write(points: int):
        structure = qo.model(tmp_path, K, K)
        values = {
            "model": str(tmp_path / "springs.json"), "alchemy": "H[1;2]->He", "equilibrate": "2",
            "schedule": "poly9", "switch": "5", "cycles": "1", "masses": "fixed",
        }  # fmt: skip
        settings = Settings(qo.TEMPERATURE, timestep=0.5, beads=BEADS)
        prepare("switch-pimd", structure, tmp_path / "run", values, settings)
        run = read_input(tmp_path / "run")
        write_points(run, leg_folder(tmp_path / "run"), points, 5 * (ROWS - 1))
        return tmp_path / "run"

    return write


def kinetic(folder, k: int, values: np.ndarray) -> None:
    """K_cv (n, 4) eV of the k-th point as i-PI prints it: a third along each axis."""
    run = read_input(leg_folder(folder) / f"point-{k + 1}")
    text = []
    for row, energies in enumerate(values):
        text.append(
            f"4\n# CELL(abcABC): 12 12 12 90 90 90 Step: {5 * row:10d} Bead: 0 "
            "kinetic_cv{electronvolt} cell{angstrom}\n"
        )
        text += [f"H {e / 3:.12e} {e / 3:.12e} {e / 3:.12e}\n" for e in energies]
    run.output("kinetic_cv.xyz").write_text("".join(text), encoding="utf-8")


def constant(energies: tuple[float, ...]) -> np.ndarray:
    return np.tile(energies, (ROWS, 1))


def virial_energy(m: float) -> float:
    """K_cv = −m ∂F/∂m of a three-dimensional oscillator of BEADS beads, eV."""
    x = units.HBAR_EV_FS * np.sqrt(K / m / units.DALTON_ANGSTROM2_PER_FS2_EV) / qo.KT
    y = BEADS * np.arcsinh(x / (2 * BEADS))
    return 0.75 * qo.KT * x / np.tanh(y) / np.sqrt(1.0 + (x / (2 * BEADS)) ** 2)


def free_energy(m: float) -> float:
    """3 kT ln(2 sinh(P asinh(βħω/2P))), eV."""
    x = units.HBAR_EV_FS * np.sqrt(K / m / units.DALTON_ANGSTROM2_PER_FS2_EV) / qo.KT
    return 3.0 * qo.KT * np.log(2.0 * np.sinh(BEADS * np.arcsinh(x / (2 * BEADS))))


def test_the_leg_is_the_difference_of_ring_polymers(leg):
    """F(m_f) − F(m_i) of two oscillators; what the atoms do whose masses stay does not matter."""
    folder = leg(4)
    for k, s in enumerate(gauss_legendre(4)[0]):
        energy = virial_energy(H * (HE / H) ** s)
        kinetic(folder, k, constant((7.0, energy, energy, 9.0)))
    found = mass_leg_in(leg_folder(folder))
    exact = 2.0 * (free_energy(HE) - free_energy(H))
    assert found.value == pytest.approx(exact, rel=1e-6)
    assert found.classical == pytest.approx(-3.0 * qo.KT * LOG)
    assert exact < 1.2 * found.classical < 0.0  # quantum nuclei gain more by becoming heavier


def test_the_classical_limit_is_eq_22(leg):
    """K_cv = 3/2 kT at every mass gives (3/2) kT Σ ln(m_i/m_f), with any number of points."""
    folder = leg(2)
    for k in range(2):
        kinetic(folder, k, constant((1.5 * qo.KT,) * 4))
    found = mass_leg_in(leg_folder(folder))
    assert found.value == pytest.approx(found.classical, rel=1e-9)


def test_a_point_left_out_tells_how_rough_the_rule_is(leg):
    """dF/ds = a + b s + c s² on three nodes: what the line through two of them makes of it."""
    folder = leg(3)
    s, _ = gauss_legendre(3)
    slope = -1.0 - 0.4 * s + 2.0 * s**2
    for k in range(3):
        kinetic(folder, k, constant((1.0, -slope[k] / LOG, 0.0, 1.0)))
    found = mass_leg_in(leg_folder(folder))
    assert found.value == pytest.approx(-1.0 - 0.2 + 2.0 / 3.0)
    lines = []
    for i, j in ((0, 1), (0, 2), (1, 2)):  # ∫₀¹ of a line is its value in the middle
        middle = slope[i] + (0.5 - s[i]) * (slope[j] - slope[i]) / (s[j] - s[i])
        lines.append(abs(middle - found.value))
    assert found.rule == pytest.approx(max(lines))

    def told(errors: float) -> list[str]:
        return [w for w in leg_warnings(replace(found, se=found.rule / errors)) if "left out" in w]

    assert told(5.0) == []
    (word,) = told(20.0)
    assert word.endswith("20 of its errors: use more points")


def test_errors_of_the_points_add_up_with_the_weights_of_the_rule(leg):
    """White noise σ_k on K of two atoms: SE² = Σ_k w_k² 2 (σ_k ln(m_f/m_i))²/n_k."""
    folder = leg(3)
    rng = np.random.default_rng(4)
    _, weights = gauss_legendre(3)
    sds = np.array([0.01, 0.02, 0.06])
    for k, sd in enumerate(sds):
        kinetic(folder, k, 0.1 + sd * rng.normal(size=(ROWS, 4)))
    found = mass_leg_in(leg_folder(folder))
    rows = np.array([ROWS - p.equilibration for p in found.points])
    assert (rows <= 0.9 * ROWS + 1).all()
    exact = np.linalg.norm(weights * np.sqrt(2.0 / rows) * sds * LOG)
    assert found.se == pytest.approx(exact, rel=0.2)
    assert found.term().se == found.se
    assert abs(found.value + 2.0 * LOG * 0.1) < 4.0 * exact


def test_a_point_of_five_rows_leaves_the_leg_without_an_error(leg):
    """Its scatter says nothing: no error, with the reason, and a warning."""
    folder = leg(2)
    for k in range(2):
        kinetic(folder, k, 0.1 + 0.01 * np.random.default_rng(k).normal(size=(ROWS, 4)))
    found = mass_leg_in(leg_folder(folder))
    assert found.se is not None
    start, _, mean = equilibrium_mean(found.points[0].gradient[:5])
    short = replace(found.points[0], equilibration=start, mean=mean)
    without = integrated([short, found.points[1]], found.classical)
    assert (without.se, without.term().se, without.dof) == (None, None, None)
    (warning,) = [w for w in leg_warnings(without) if "has no error" in w]
    assert "5 rows, 20 are needed" in warning


def test_points_that_hold_too_little_are_told(leg):
    """A row short of its length a point is unfinished; few independent rows have no sure error."""
    folder = leg(2)
    values = 0.1 + 0.01 * np.random.default_rng(6).normal(size=(ROWS, 4))
    for k in range(2):
        kinetic(folder, k, values)
    found = mass_leg_in(leg_folder(folder))
    assert leg_warnings(replace(found, rule=None)) == []
    few = tuple(replace(p, mean=replace(p.mean, n=40)) for p in found.points)
    assert len(leg_warnings(replace(found, points=few, rule=None))) == 2
    kinetic(folder, 1, values[:-1])
    with pytest.raises(AnalysisError, match="point-2 is at step 1995 of 2000: resume it"):
        mass_leg_in(leg_folder(folder))


def test_a_leg_is_of_one_calculation_only(leg):
    """Temperature, pressure, ensemble, ends, Hamiltonian and beads are those of the switch."""
    folder = leg(2)
    for k in range(2):
        kinetic(folder, k, constant((0.1,) * 4))
    run = read_input(folder)
    assert leg_of(folder, run).value == pytest.approx(-0.2 * LOG)
    assert leg_of(folder, replace(run, beads=1)) is None  # eq. 22 is exact
    for change, word in (
        ({"temperature": 310.0}, "temperature"),
        ({"pressure": 1.0}, "pressure"),
        ({"ensemble": "npt"}, "ensemble"),
        ({"transformation": replace(run.transformation, final=("He",) * 4)}, "alchemy"),
        ({"parameters": replace(run.parameters, digest="sha256-0")}, "digest"),
        ({"beads": 12}, "beads"),
    ):
        with pytest.raises(AnalysisError, match=f"differs from run in {word}.*another calculation"):
            leg_of(folder, replace(run, **change))
    point = leg_folder(folder) / "point-2" / "input.xml"
    text = point.read_text(encoding="utf-8")
    point.write_text(text.replace("lambda: 1.0", "lambda: 0.0"), encoding="utf-8")
    with pytest.raises(AnalysisError, match="in lambda"):
        leg_of(folder, run)
