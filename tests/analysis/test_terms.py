"""Which corrections belong to a run: works of a crystal that can be solved, its exact answer."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.analysis_files import run_with_works, switching_input
from helpers.exact_chain import chain_hessian, lattice_dynamics, ln_fixed_centre, oscillators

from alchemdriver import analysis
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.springs import write_springs
from alchemdriver.errors import AnalysisError
from alchemdriver.records import Structure
from alchemdriver.units import kT

T, CELL, TETHER = 120.0, 6.0, 4.2


@pytest.mark.parametrize("fixcom", [True, False])
@pytest.mark.parametrize("masses", ["interpolate", "fixed"])
def test_atoms_removed_while_the_others_are_transmuted(tmp_path, masses, fixcom):
    """G_defect − G_perfect by lattice dynamics: the defect is gold, the perfect crystal copper.

    A fixed centre of mass weighs the atoms with the masses that they have: at λ = 1 the final ones
    if masses follow λ, the initial ones if they are fixed.  Removed atoms keep theirs, so that
    their share of the whole, and with it 3 kT ln(M/(M − m)) of eq. 21, is another.
    """
    path = switching_input(
        tmp_path / "r", 2, 5, 1, masses=f"{masses}, tether: {TETHER}", symbols=["Cu"] * 5,
        alchemy="Cu[0;2]->void Cu[1;3;4]->Au", temperature=T, cell=CELL, fixcom=str(fixcom),
    )  # fmt: skip
    run = read_input(path)
    initial, final = run.initial_masses, run.final_masses
    gone, kept = [0, 2], [1, 3, 4]
    assert np.array_equal(final[gone], initial[gone])
    assert (final[kept] > 3.0 * initial[kept]).all()
    rng = np.random.default_rng(11)
    perfect, rest = chain_hessian(5, rng), chain_hessian(3, rng)
    tethered = np.zeros((5, 5))
    tethered[gone, gone] = TETHER
    tethered[np.ix_(kept, kept)] = rest
    at_end = final if masses == "interpolate" else initial
    volume = CELL**3
    if fixcom:  # what momenta do is not in the works
        measured = ln_fixed_centre(tethered, at_end, T) - ln_fixed_centre(perfect, initial, T)
        measured *= -3.0 * kT(T)
    else:  # the configurations alone: the difference of crystals whose masses do not change
        measured = (
            lattice_dynamics(rest, initial[kept], T, volume, 1)
            + oscillators([TETHER] * 2, initial[gone], T)
            - lattice_dynamics(perfect, initial, T, volume, 1)
        )
    run_with_works(path, [measured], [-measured])
    total = analysis.analyze(path, write=False).total("eq. 11")
    expected = lattice_dynamics(rest, final[kept], T, volume, 1)
    expected -= lattice_dynamics(perfect, initial, T, volume, 1)
    assert total.value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("beads", [1, 6])
def test_the_tether_of_a_removed_atom_has_the_beads_of_the_run(tmp_path, beads):
    """F_spring that is taken off is what as many beads sample, not the classical one."""
    path = switching_input(
        tmp_path / "r", 2, 5, 1, masses=f"fixed, tether: {TETHER}", alchemy="Cu[2]->void",
        temperature=T, cell=CELL, fixcom="False", beads=beads,
    )  # fmt: skip
    run_with_works(path, [0.1], [-0.1])
    mass = read_input(path).initial_masses[2]
    total = analysis.analyze(path, write=False).total("eq. 11")
    expected = 0.1 - oscillators([TETHER], np.array([mass]), T, beads)
    assert total.value == pytest.approx(expected, abs=1e-9)


# --- Einstein crystals --------------------------------------------------------------------------

SIDES = np.array([5.0, 6.0, 7.0])  # Å, of an orthorhombic cell
ANCHORS = np.array([[0.0, 0, 0], [2.5, 3.0, 0], [2.5, 0, 3.5], [0, 3.0, 3.5]])
ALLOY = ("Cu", "Au", "Au", "Cu")


def einstein(folder, start, work=0.0):
    """A switch from springs at ANCHORS of one constant each, begun at *start*."""
    path = switching_input(
        folder, 2, 5, 1, alchemy="einstein->model, springs: k.extxyz", symbols=ALLOY,
        positions=start, cell=SIDES, temperature=T,
    )  # fmt: skip
    constants = np.array([1.0, 2.0, 3.0, 4.0])
    write_springs(folder / "k.extxyz", Structure(ALLOY, ANCHORS, np.diag(SIDES)), constants)
    run_with_works(path, [work], [-work])
    return path, constants


def test_an_einstein_crystal_becomes_a_harmonic_one(tmp_path):
    """Exact ΔF between springs to fixed points and springs between atoms, both with the centre of
    mass fixed, plus eqs. 18 to 20: the free energy of the crystal by lattice dynamics, and P V."""
    phi = chain_hessian(4, np.random.default_rng(5))
    path, k = einstein(tmp_path / "probe", ANCHORS)
    masses = read_input(path).initial_masses
    work = -3.0 * kT(T) * (ln_fixed_centre(phi, masses, T) - ln_fixed_centre(np.diag(k), masses, T))
    path, _ = einstein(tmp_path / "r", ANCHORS, work)
    volume, pressure = SIDES.prod(), 160.21766208e4 / 10.0  # bar: a tenth of an eV/Å³
    found = analysis.analyze(path, write=False, n_ws=2, pressure=pressure).total("eq. 11")
    expected = lattice_dynamics(phi, masses, T, volume, 2) + 0.1 * volume
    assert found.value == pytest.approx(expected, rel=5e-5)  # i-PI's bar
    found = analysis.analyze(path, write=False, n_ws=2).total("eq. 11")
    assert found.value == pytest.approx(lattice_dynamics(phi, masses, T, volume, 2), abs=1e-9)


def test_the_start_has_the_anchors_centre_of_mass_not_of_places(tmp_path):
    """Masses weigh: gold that moves a little takes back what copper moved.  10⁻⁶ Å, no more."""
    mass = read_input(einstein(tmp_path / "probe", ANCHORS)[0]).initial_masses
    start = ANCHORS.copy()
    start[0, 0] += 0.3
    start[1, 0] -= 0.3 * mass[0] / mass[1]
    path, _ = einstein(tmp_path / "balanced", start)
    assert len(analysis.analyze(path, write=False, n_ws=1).terms) == 2
    for name, second in (("places", ANCHORS[1, 0] - 0.3), ("little", start[1, 0] + 1e-5)):
        off = start.copy()
        off[1, 0] = second
        path, _ = einstein(tmp_path / name, off)
        with pytest.raises(AnalysisError, match="from the anchors'"):
            analysis.analyze(path, write=False, n_ws=1)
