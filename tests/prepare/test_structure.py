"""What a structure file says beyond elements and places is used, or refused; never dropped."""

from __future__ import annotations

import json

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixScaled
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import InputError
from alchemdriver.prepare.structure import read_structure, whole_crystal

SWITCH = ("--model", "demo", "--temperature", 300, "--timestep", 2, "--equilibrate", 5)
SWITCH += ("--switch", 10, "--cycles", 1, "--alchemy", "Pb->Sn")
CIF = """data_x
_cell_length_a 6.3
_cell_length_b 6.3
_cell_length_c 6.3
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cs1 Cs 0.5 0.5 0.5 1.0
Pb1 Pb 0 0 0 {lead}
{more}
I1 I 0.5 0 0 {iodine}
"""


@pytest.fixture
def perovskite():
    return ase.Atoms(
        "CsPbI3",
        scaled_positions=[[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
        cell=[6.3] * 3,
        pbc=True,
    )


def prepared(path, folder, *more):
    done = rr.command("prepare", "switch-nvt", path, folder, *SWITCH, *more)
    assert done.returncode == 0, done.stderr
    return read_input(folder), done.stdout


@pytest.mark.parametrize(
    ("lead", "more", "iodine", "says"),
    [
        ("0.6", "Sn1 Sn 0 0 0 0.4", "1.0", "0.6 Pb"),
        ("1.0", "", "0.9", "0.9 I"),
    ],
)
def test_sites_that_are_not_whole_atoms_are_refused(tmp_path, lead, more, iodine, says):
    path = tmp_path / "x.cif"
    path.write_text(CIF.format(lead=lead, more=more, iodine=iodine))
    with pytest.raises(InputError, match=f"disordered.*{says}"):
        read_structure(path)


def test_whole_sites_of_a_cif_are_read(tmp_path):
    path = tmp_path / "x.cif"
    path.write_text(CIF.format(lead="1.0", more="", iodine="1.0"))
    assert len(read_structure(path)) == 5


def test_masses_of_the_file_are_run_and_corrected_with(perovskite, tmp_path):
    perovskite.set_masses([132.9, 210.0, 129.0, 129.0, 129.0])
    ase.io.write(tmp_path / "x.extxyz", perovskite, columns=["symbols", "positions", "masses"])
    run, said = prepared(tmp_path / "x.extxyz", tmp_path / "a", "--supercell", "2x1x1")
    assert "used of the structure file: masses" in said
    np.testing.assert_allclose(run.initial_masses, [132.9, 210.0, 129.0, 129.0, 129.0] * 2)
    # lead of 210 u becomes tin of natural abundance; what does not change keeps its mass
    np.testing.assert_allclose(run.final_masses, [132.9, 118.71, 129.0, 129.0, 129.0] * 2)
    with pytest.raises(InputError, match="masses of its own"):
        whole_crystal(tmp_path / "x.extxyz")


def test_a_masses_file_that_is_given_counts(perovskite, tmp_path):
    perovskite.set_masses([132.9, 210.0, 129.0, 129.0, 129.0])
    ase.io.write(tmp_path / "x.extxyz", perovskite, columns=["symbols", "positions", "masses"])
    own = {"initial": [1.0] * 5, "final": [2.0] * 5}
    (tmp_path / "own.json").write_text(json.dumps(own))
    run, _ = prepared(tmp_path / "x.extxyz", tmp_path / "a", "--masses-file", tmp_path / "own.json")
    assert run.initial_masses.tolist() == own["initial"]


def test_elements_own_masses_need_no_file(perovskite, tmp_path):
    ase.io.write(tmp_path / "x.extxyz", perovskite)
    run, _ = prepared(tmp_path / "x.extxyz", tmp_path / "a")
    assert run.parameters.masses_file is None


def test_selective_dynamics_hold_atoms(perovskite, tmp_path):
    perovskite.set_constraint(FixAtoms([1]))
    ase.io.write(tmp_path / "POSCAR", perovskite, format="vasp")
    run, said = prepared(tmp_path / "POSCAR", tmp_path / "a", "--supercell", "2x1x1")
    assert run.held == (3, 4, 5, 18, 19, 20)
    assert not run.fixes_centre_of_mass
    assert "used of the structure file: 2 atoms that are held" in said
    with pytest.raises(InputError, match="holds atoms, but here all atoms move"):
        whole_crystal(tmp_path / "POSCAR")


@pytest.mark.parametrize("constraint", [FixScaled, FixCartesian])
def test_single_coordinates_are_held(perovskite, tmp_path, constraint):
    perovskite.set_constraint(constraint(2, (True, False, True)))
    ase.io.write(tmp_path / "x.traj", perovskite)
    run, _ = prepared(tmp_path / "x.traj", tmp_path / "a", "--supercell", "1x2x1")
    assert run.held == (6, 8, 21, 23)


def test_constraints_that_ipi_does_not_know_are_refused(perovskite, tmp_path):
    perovskite.set_constraint(FixBondLength(0, 1))
    ase.io.write(tmp_path / "x.traj", perovskite)
    with pytest.raises(InputError, match=r"does not know \(FixBondLength"):
        read_structure(tmp_path / "x.traj")


def test_axes_that_turn_with_the_cell_are_not_held(tmp_path):
    atoms = bulk("Cu")  # a in the yz plane: i-PI's orientation is another
    atoms.set_constraint(FixCartesian(0, (True, False, False)))
    ase.io.write(tmp_path / "x.traj", atoms)
    with pytest.raises(InputError, match="held along some axes only"):
        read_structure(tmp_path / "x.traj")


# --- frames, charges, and what nothing is made of ---------------------------------------------


def frames(atoms, n):
    made = [atoms.copy() for _ in range(n)]
    for k, frame in enumerate(made):
        frame.positions[0, 0] += 0.1 * k
    return made


@pytest.mark.parametrize("name", ["x.extxyz", "x.traj", "XDATCAR", "x.cif"])
def test_a_file_of_several_frames_wants_to_be_told_which(perovskite, tmp_path, name):
    path = tmp_path / name
    ase.io.write(path, frames(perovskite, 3))
    with pytest.raises(InputError, match="has 3 frames: say which with --index, from 0 to 2"):
        read_structure(path)
    for index, moved in ((0, 0.0), (1, 0.1), (-1, 0.2)):
        found = read_structure(path, index=index).positions[0, 0]
        assert found - 3.15 == pytest.approx(moved, abs=1e-5)
    with pytest.raises(InputError, match="--index 3 is not among 0 to 2"):
        read_structure(path, index=3)


def test_prepare_takes_the_index(perovskite, tmp_path):
    ase.io.write(tmp_path / "x.extxyz", frames(perovskite, 2))
    run, _ = prepared(tmp_path / "x.extxyz", tmp_path / "a", "--index", "-1")
    assert run.structure.positions[0, 0] == pytest.approx(3.25)


def test_one_line_says_what_nothing_is_made_of(perovskite, tmp_path):
    perovskite.set_initial_magnetic_moments([0, 1, 0, 0, 0])
    perovskite.set_tags([1, 0, 0, 0, 0])
    perovskite.set_momenta(np.ones((5, 3)))
    perovskite.info.update(temperature=300.0, charge=0, spin=1, head="Default")
    ase.io.write(tmp_path / "x.traj", perovskite)
    structure = read_structure(tmp_path / "x.traj")
    assert (structure.charge, structure.spin, structure.head) == (None, None, None)
    (line,) = structure.remarks
    assert line.startswith("not used of the structure file: ")
    told = "tags", "magnetic moments", "velocities (new ones are drawn)", "temperature"
    assert all(word in line for word in told)


def test_velocities_of_a_poscar_are_said_to_be_left(perovskite, tmp_path):
    perovskite.set_momenta(np.ones((5, 3)))
    ase.io.write(tmp_path / "x.vasp", perovskite, format="vasp")
    with open(tmp_path / "x.vasp", "a") as file:
        file.write("\n" + "0.1 0.2 0.3\n" * 5)
    assert "velocities" in read_structure(tmp_path / "x.vasp").remarks[0]


def test_a_bare_file_is_not_commented(perovskite, tmp_path):
    for name in ("x.extxyz", "x.cif", "POSCAR"):
        ase.io.write(tmp_path / name, perovskite)
        assert read_structure(tmp_path / name).remarks == ()


def test_charges_are_those_of_all_copies(perovskite, tmp_path):
    perovskite.info.update(charge=-1, head="r2scan")
    ase.io.write(tmp_path / "x.extxyz", perovskite)
    structure = read_structure(tmp_path / "x.extxyz", (2, 1, 1))
    assert (structure.charge, structure.head) == (-2.0, "r2scan")
    assert structure.remarks == ("used of the structure file: charge -2, head r2scan",)
    assert read_structure(tmp_path / "x.extxyz", given=("charge", "head")).charge is None
    with pytest.raises(InputError, match="charge or spin of its own"):
        whole_crystal(tmp_path / "x.extxyz")
    perovskite.info["spin"] = 3
    ase.io.write(tmp_path / "x.extxyz", perovskite)
    assert read_structure(tmp_path / "x.extxyz").spin == 3.0
    with pytest.raises(InputError, match="how its 2 copies couple"):
        read_structure(tmp_path / "x.extxyz", (2, 1, 1))
    assert read_structure(tmp_path / "x.extxyz", (2, 1, 1), given=("spin",)).charge == -2.0


def test_atomic_charges_that_make_a_charge_must_be_named(perovskite, tmp_path):
    perovskite.set_initial_charges([1, 2, -1, -1, -1])
    ase.io.write(tmp_path / "x.extxyz", perovskite)
    assert read_structure(tmp_path / "x.extxyz").remarks == (
        "not used of the structure file: atomic charges",
    )
    perovskite.set_initial_charges([0, 2, -1, -1, -1])
    ase.io.write(tmp_path / "x.extxyz", perovskite)
    with pytest.raises(InputError, match="sum to -1: say the charge of the cell with --charge -2"):
        read_structure(tmp_path / "x.extxyz", (2, 1, 1))


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False)])
def test_directions_that_are_not_periodic_are_refused(perovskite, tmp_path, pbc):
    perovskite.pbc = pbc
    ase.io.write(tmp_path / "x.extxyz", perovskite)
    with pytest.raises(InputError, match="not periodic along all three axes"):
        read_structure(tmp_path / "x.extxyz")


def test_a_left_handed_cell_is_swapped(perovskite, tmp_path):
    """The same crystal: its distances are those of the file."""
    perovskite.set_cell([[0, 6.3, 0], [6.5, 0, 0], [0, 0, 7.0]], scale_atoms=True)
    perovskite.rattle(0.1, seed=1)
    ase.io.write(tmp_path / "x.extxyz", perovskite)
    structure = read_structure(tmp_path / "x.extxyz", (2, 1, 1))
    assert "left-handed: its vectors a and b were swapped" in structure.remarks[0]
    assert np.linalg.det(structure.cell) > 0
    found = ase.Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=True)
    expected = perovskite.repeat((2, 1, 1)).get_all_distances(mic=True)
    np.testing.assert_allclose(found.get_all_distances(mic=True), expected, atol=1e-6)


def test_occupancies_near_1_are_1_and_it_is_said(tmp_path):
    path = tmp_path / "x.cif"
    path.write_text(CIF.format(lead="1.0", more="", iodine="0.9995"))
    assert read_structure(path).remarks == ("occupancies from 0.9995 to 1 were taken as 1",)
    path.write_text(CIF.format(lead="1.0", more="", iodine="0.998"))
    with pytest.raises(InputError, match="disordered"):
        read_structure(path)


def test_occupancies_of_other_files_count_too(perovskite, tmp_path):
    perovskite.set_array("occupancy", np.array([1.0, 0.5, 1.0, 1.0, 1.0]))
    ase.io.write(tmp_path / "x.pdb", perovskite)
    with pytest.raises(InputError, match=r"disordered: 1 of 5 .*0\.5 Pb"):
        read_structure(tmp_path / "x.pdb")
