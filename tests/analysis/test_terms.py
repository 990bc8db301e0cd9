"""Which corrections belong to a run: works of a crystal that can be solved, its exact answer."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.analysis_files import run_with_works, switching_input
from helpers.exact_chain import chain_hessian, lattice_dynamics, ln_fixed_centre, oscillators

from alchemdriver import analysis
from alchemdriver.contract.run_input import read_input
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
