"""Averages over trajectories with known moments, and crystals that change their phase."""

from __future__ import annotations

from dataclasses import replace

import ase
import numpy as np
import pytest
from ase.build import bulk
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import RunError
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import averages
from alchemdriver.workflow.symmetry import space_group

T = 300.0


def rocksalt(repeat: int = 1) -> Structure:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(repeat)
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


def run_of(folder, structure: Structure):
    """An input for plain dynamics of *structure*; nobody runs it."""
    rr.oscillators(folder)
    settings = Settings(temperature=T, timestep=2.0, total_steps=100)
    prepare("nvt", structure, folder / "a", {"model": str(folder / "osc.json")}, settings)
    return read_input(folder / "a")


def write_frames(run, cells, positions) -> None:
    text = []
    for k, (cell, x) in enumerate(zip(cells, positions, strict=True)):
        a, b, c, *angles = ase.cell.Cell(cell).cellpar()
        text.append(
            f"{len(x)}\n# CELL(abcABC): {a:.8f} {b:.8f} {c:.8f} {angles[0]:.6f} {angles[1]:.6f} "
            f"{angles[2]:.6f} Step: {10 * k} Bead: 0 positions{{angstrom}} cell{{angstrom}}\n"
        )
        text += [
            f"{s} {r[0]:.8e} {r[1]:.8e} {r[2]:.8e}\n"
            for s, r in zip(run.structure.symbols, x, strict=True)
        ]
    run.output("pos_0.xyz").write_text("".join(text))


def thermal(run, frames=2000, sd=(0.12, 0.20), seed=7) -> np.ndarray:
    """Independent Gaussian displacements, Na narrower than Cl, mass centre at rest."""
    random = np.random.default_rng(seed)
    width = np.where(np.array(run.structure.symbols) == "Na", *sd)
    moved = random.normal(size=(frames, len(width), 3)) * width[:, None]
    mu = run.initial_masses / run.initial_masses.sum()
    moved -= np.einsum("i,tia->ta", mu, moved)[:, None, :]
    return run.structure.positions + moved


def test_spring_constants_are_those_of_the_widths(tmp_path):
    run = run_of(tmp_path, rocksalt())
    write_frames(run, [run.structure.cell] * 2000, thermal(run))
    found = averages.average(run, space_group(run.structure))
    na, cl = np.array(run.structure.symbols) == "Na", np.array(run.structure.symbols) == "Cl"
    # the mass centre that was taken out makes every width smaller, exactly; 4 % are 4 SE
    mu = run.initial_masses / run.initial_masses.sum()
    var = np.where(na, 0.12, 0.20) ** 2
    expected = 3.0 * (var * (1 - mu) ** 2 + (mu**2 * var).sum() - mu**2 * var)
    assert np.ptp(found.mean_square_displacement[na]) == 0.0  # equivalent atoms share one value
    assert found.mean_square_displacement[na].mean() == pytest.approx(expected[na][0], rel=0.04)
    assert found.mean_square_displacement[cl].mean() == pytest.approx(expected[cl][0], rel=0.04)
    k = averages.spring_constants(T, found.mean_square_displacement)
    assert k[na][0] == pytest.approx(3 * kT(T) / expected[na][0], rel=0.04)
    assert np.abs(found.structure.positions - run.structure.positions).max() < 1e-9


def titanate() -> Structure:
    """Tetragonal PbTiO3: titanium and oxygen are free to move along the polar axis."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.54], [0.5, 0, 0.6], [0, 0.5, 0.6], [0.5, 0.5, 0.1]]
    cell = np.diag([3.9, 3.9, 4.15])
    return Structure(("Pb", "Ti", "O", "O", "O"), np.array(sites) @ cell, cell)


def settled(run, along_axis, frames=2000, width=(0.05, 0.06, 0.08, 0.08, 0.07)):
    """Offsets (5, 3) with the mass centre at rest, frames about them, and exact ⟨Δr²⟩ (5,)."""
    mu = run.initial_masses / run.initial_masses.sum()
    offset = np.zeros((5, 3))
    offset[:, 2] = along_axis - mu @ along_axis
    x = np.random.default_rng(9).normal(size=(frames, 5, 3)) * np.array(width)[:, None]
    x -= np.einsum("i,tia->ta", mu, x)[:, None, :]
    var = np.square(width)
    exact = 3.0 * (var * (1 - mu) ** 2 + (mu**2 * var).sum() - mu**2 * var)
    return offset, run.structure.positions + offset + x, exact


def test_springs_are_about_the_mean_positions_not_the_start(tmp_path):
    """k = 3 kT/⟨Δr²⟩ with Δr from where the atoms are on average: a site that symmetry leaves free
    settles away from the relaxed structure at 0 K, and that must not soften its spring."""
    run = run_of(tmp_path, titanate())
    group = space_group(run.structure)
    assert group.name == "P4mm"
    offset, frames, exact = settled(run, np.array([0.0, 0.20, -0.15, -0.15, -0.25]))
    assert (offset[1:, 2] ** 2 > exact[1:]).all()  # about the start, k would be halved
    write_frames(run, [run.structure.cell] * 2000, frames)
    found = averages.average(run, group)
    assert found.mean_square_displacement == pytest.approx(exact, rel=0.08)
    moved = found.structure.positions - run.structure.positions
    np.testing.assert_allclose(moved, offset, atol=0.01)
    assert found.off_site < 0.05  # the crystal moved, no quarter of the run did


def test_a_crystal_that_is_another_from_the_first_frame_on_is_noticed(tmp_path):
    """All quarters agree, but on a structure that is not the one that was asked for."""
    run = run_of(tmp_path, titanate())
    _, frames, _ = settled(run, np.array([0.0, 0.0, 0.0, 0.0, -0.70]), frames=400)
    write_frames(run, [run.structure.cell] * 400, frames)
    with pytest.raises(RunError, match=r"in the mean of the run, atom 4 \(O\)"):
        averages.average(run, space_group(run.structure))


def test_a_tenth_at_least_is_not_equilibrium(tmp_path):
    """The start is a perfect crystal at rest, whatever a test of stationarity finds."""
    run = run_of(tmp_path, rocksalt())
    write_frames(run, [run.structure.cell] * 500, thermal(run, 500))
    found = averages.average(run, space_group(run.structure))
    assert found.frames == 450
    assert found.equilibration == pytest.approx(50 * 10 * 2.0e-3)  # ps: frames, steps, fs


def test_displacements_that_still_grow_are_left_out(tmp_path):
    """At constant volume: two fifths of the run at hardly any temperature."""
    run = run_of(tmp_path, rocksalt())
    frames = thermal(run, 1000)
    frames[:400] = run.structure.positions + 0.1 * (frames[:400] - run.structure.positions)
    write_frames(run, [run.structure.cell] * 1000, frames)
    found = averages.average(run, space_group(run.structure))
    assert 400 <= found.frames <= 600
    write_frames(run, [run.structure.cell] * 600, frames[400:])
    still = averages.average(run, space_group(run.structure))
    assert found.mean_square_displacement == pytest.approx(still.mean_square_displacement, rel=0.05)


def test_a_volume_that_still_grows_is_left_out(tmp_path):
    """At constant pressure the volume decides, which is slower than any displacement."""
    run = run_of(tmp_path, rocksalt())
    rng = np.random.default_rng(5)
    size = 1.03 + 0.001 * rng.normal(size=1000)
    size[:400] -= 0.03 * np.linspace(1.0, 0.0, 400)
    frames = thermal(run, 1000) * size[:, None, None]
    write_frames(run, run.structure.cell * size[:, None, None], frames)
    found = averages.average(run, space_group(run.structure))
    assert found.frames <= 650
    cell = found.structure.cell
    assert cell[0, 0] == pytest.approx(5.6 * 1.03, abs=5.6 * 0.0005)
    # sites that symmetry fixes go with the cell
    sites = run.structure.positions / 5.6
    np.testing.assert_allclose(found.structure.positions, sites @ cell, atol=1e-6)


def test_the_mean_cell_has_the_symmetry_of_the_crystal(tmp_path):
    run = run_of(tmp_path, rocksalt())
    random = np.random.default_rng(3)
    cells, positions = [], []
    sites = run.structure.positions @ np.linalg.inv(run.structure.cell)
    for x in thermal(run, 400):
        strain = np.tril(random.normal(scale=0.01, size=(3, 3))) + np.diag([0.03, 0.02, 0.01])
        cell = run.structure.cell @ (np.eye(3) + strain)
        cells.append(cell)
        positions.append((sites + (x - run.structure.positions) / 5.6) @ cell)
    write_frames(run, cells, positions)
    cell = averages.average(run, space_group(run.structure)).structure.cell
    assert np.allclose(cell, cell[0, 0] * np.eye(3), atol=1e-9)
    assert cell[0, 0] == pytest.approx(5.6 * 1.02, rel=1e-3)


def test_an_atom_that_leaves_its_site_is_not_averaged_over(tmp_path):
    run = run_of(tmp_path, rocksalt())
    positions = thermal(run, 400, sd=(0.05, 0.05))
    positions[310:, 3] += [0.0, 1.2, 0.0]  # 43 % of the way to the next site
    write_frames(run, [run.structure.cell] * 400, positions)
    with pytest.raises(RunError, match=r"in quarter \d of the run, atom 3 \("):
        averages.average(run, space_group(run.structure))


@pytest.mark.parametrize("percent", [8, 11])
def test_a_cell_that_strains_is_not_averaged_over(tmp_path, percent):
    """Up to a tenth is thermal expansion and pressure, more is another crystal."""
    run = run_of(tmp_path, rocksalt())
    size = 1.0 + percent / 100
    frames = thermal(run, 400, sd=(0.05, 0.05)) * size
    write_frames(run, [run.structure.cell * size] * 400, frames)
    if percent < 10:
        found = averages.average(run, space_group(run.structure))
        assert found.strain == pytest.approx(percent / 100)
    else:
        with pytest.raises(RunError, match="cell strained by 11 %"):
            averages.average(run, space_group(run.structure))


def test_too_few_frames_are_refused(tmp_path):
    run = run_of(tmp_path, rocksalt())
    write_frames(run, [run.structure.cell] * 12, thermal(run, 12))
    with pytest.raises(RunError, match="at least 20 are needed"):
        averages.average(run, space_group(run.structure))


def switching(folder, **parameters):
    """Two cycles of holds and switches of 40 steps each; frames every 10 steps, nobody runs it."""
    lengths = {"schedule": "linear", "equilibrate": 40, "switch": 40, "cycles": 2}
    return read_input(rr.oscillator_run(folder / "a", **lengths, **parameters))


def moved(run, atom: int, steps) -> list[np.ndarray]:
    """Positions of all frames, *atom* off its site by 2 Å at *steps*."""
    frames = [run.structure.positions.copy() for _ in range(run.total_steps // 10 + 1)]
    for step in steps:
        frames[step // 10][atom, 0] += 2.0
    return frames


def test_a_crystal_that_changes_in_a_hold_is_not_switched_over(tmp_path):
    """Of 4 atoms 5.7 Å apart, one 2 Å off (less what the mass centre takes) in the last hold."""
    run = switching(tmp_path)
    cells = [run.structure.cell] * 33
    write_frames(run, cells, moved(run, 2, range(240, 280, 10)))
    with pytest.raises(RunError, match=r"in hold 4 of the run, atom 2 \(Cu\) is on average 1\.5"):
        averages.check_holds(run)
    write_frames(run, cells, moved(run, 2, range(200, 240, 10)))  # on the way, not in a hold
    assert averages.check_holds(run) < 1e-6
    write_frames(run, [c * 1.2 for c in cells], [1.2 * x for x in moved(run, 2, ())])
    with pytest.raises(RunError, match="cell strained by 20 %"):
        averages.check_holds(run)


def test_an_atom_on_its_tether_may_go_where_it_likes(tmp_path):
    run = switching(tmp_path, alchemy="Cu[2]->void", tether=4.2)
    write_frames(run, [run.structure.cell] * 33, moved(run, 2, range(80, 120, 10)))
    assert averages.check_holds(run) < 1.0


# --- space groups -------------------------------------------------------------------------------


@pytest.mark.parametrize(("repeat", "n"), [(1, 4), (2, 32)])
def test_equivalent_sites_are_counted_in_supercells(repeat, n):
    group = space_group(rocksalt(repeat))
    assert (group.name, group.cubic) == ("Fm-3m", True)
    assert len(set(group.equivalent)) == 2
    assert group.images((0,)) == n


def test_a_vacancy_keeps_what_the_site_allows():
    full = rocksalt(2)
    kept = list(range(1, len(full)))
    defect = replace(
        full, symbols=tuple(full.symbols[i] for i in kept), positions=full.positions[kept]
    )
    group = space_group(defect)
    assert group.cubic
    assert len(set(group.equivalent)) > 2  # shells around the empty site


def test_configurations_of_two_vacancies_are_counted_by_symmetry():
    """Nearest-neighbour pairs in bcc: 8 N / 2 of them."""
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(3)
    iron = Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))
    assert space_group(iron).images((0, 1)) == 8 * len(atoms) // 2


def threefold() -> Structure:
    """Two orbits of general positions about a threefold axis, P3, in 2×2×1 cells."""
    sites = [
        [[x, y, z], [-y, x - y, z], [y - x, -x, z]]
        for x, y, z in ((0.31, 0.07, 0.0), (0.22, 0.41, 0.37), (0.12, 0.26, 0.61))
    ]
    atoms = ase.Atoms(
        "Ga3N3Ga3",
        scaled_positions=np.concatenate(sites),
        cell=[6.0, 6.0, 5.0, 90, 90, 120],
        pbc=True,
    ).repeat((2, 2, 1))
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


def test_the_mean_of_displacements_has_the_symmetry_of_the_crystal():
    """u_P(i) = R u_i, turned as the site is: a threefold axis tells R from its inverse.

    What has the symmetry stays; what has not, loses only its other part.
    """
    crystal = threefold()
    group = space_group(crystal)
    assert (group.name, len(group.rotations)) == ("P3", 12)
    u = np.random.default_rng(2).normal(size=(36, 3)) * 0.01
    mean = group.mean_displacements(u)
    assert np.abs(mean).max() > 1e-3
    np.testing.assert_allclose(group.mean_displacements(mean), mean, atol=1e-15)
    moved = replace(crystal, positions=crystal.positions + mean @ crystal.cell)
    again = space_group(moved)
    assert (again.name, len(again.rotations)) == ("P3", 12)


def test_the_mean_of_values_is_over_what_symmetry_makes_equal():
    """Translations of a supercell too."""
    group = space_group(threefold())
    values = np.arange(36.0)
    found = group.over_equivalent(values)
    assert len(set(group.equivalent)) == 3
    for kind in range(3):  # atoms 3 kind … 3 kind + 2 of each of the four cells of nine
        same = [9 * cell + 3 * kind + k for cell in range(4) for k in range(3)]
        np.testing.assert_allclose(found[same], values[same].mean())


def test_hexagonal_and_triclinic_cells_are_not_cubic():
    atoms = bulk("Zn", "hcp", a=2.66, c=4.95).repeat((2, 2, 1))
    hcp = Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))
    group = space_group(hcp)
    assert not group.cubic
    free = np.random.default_rng(0).normal(size=(3, 3)) * 0.05
    cell = group.mean_cell(hcp.cell @ (np.eye(3) + free))
    a, b, c, alpha, beta, gamma = ase.cell.Cell(cell).cellpar()
    assert a == pytest.approx(b)
    assert (alpha, beta, gamma) == pytest.approx((90, 90, 120))
    assert c != pytest.approx(a)
    # a cell that has the symmetry stays what it is
    other = hcp.cell * np.array([[1.03], [1.03], [0.96]])
    np.testing.assert_allclose(group.mean_cell(other), other, atol=1e-12)
