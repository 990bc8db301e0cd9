"""i-PI's xyz files and the orientation of cells."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemdriver.contract.xyz import read_xyz, standard_orientation, write_xyz
from alchemdriver.errors import InputError
from alchemdriver.records import Structure

numbers = st.floats(-1.0, 1.0, allow_subnormal=False)
cells = (
    st.lists(numbers, min_size=9, max_size=9)
    .map(lambda x: np.reshape(x, (3, 3)) + 3.0 * np.eye(3))
    .map(lambda h: np.roll(h, 1, axis=0))  # a cyclic permutation keeps the hand
)


def crystal(cell=None):
    rng = np.random.default_rng(3)
    cell = np.diag([4.0, 5.0, 6.0]) if cell is None else cell
    return Structure(("Cs", "Pb", "I", "I"), rng.uniform(-1, 5, (4, 3)), cell)


def distances(s):
    atoms = Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True)
    return atoms.get_all_distances(mic=False), atoms.get_all_distances(mic=True)


@settings(deadline=None)
@given(cells)
def test_turning_keeps_all_distances_and_the_hand(cell):
    turned, q = standard_orientation(crystal(cell))
    assert np.triu(turned.cell, 1).tolist() == np.zeros((3, 3)).tolist()
    assert (np.diag(turned.cell) > 0).all()
    assert np.allclose(q @ q.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(q) == pytest.approx(1.0)
    assert np.allclose(cell @ q, turned.cell, atol=1e-12)
    before, after = distances(crystal(cell)), distances(turned)
    assert np.allclose(before[0], after[0], atol=1e-12)
    assert np.allclose(before[1], after[1], atol=1e-10)


def test_a_cell_in_standard_orientation_is_left_alone():
    turned, q = standard_orientation(crystal())
    assert np.array_equal(q, np.eye(3))
    assert np.array_equal(turned.positions, crystal().positions)


def test_a_left_handed_or_flat_cell_is_refused():
    for cell in (np.diag([1.0, 1.0, -1.0]), np.diag([1.0, 1.0, 0.0])):
        with pytest.raises(InputError, match="right-handed"):
            standard_orientation(crystal(cell))


@settings(deadline=None)
@given(cells)
def test_what_is_written_is_read_digit_for_digit(tmp_path_factory, cell):
    path = tmp_path_factory.mktemp("xyz") / "start.xyz"
    turned, _ = standard_orientation(crystal(cell))
    write_xyz(path, turned)
    read = read_xyz(path)
    assert read.symbols == turned.symbols
    assert np.array_equal(read.positions, turned.positions)
    assert np.array_equal(read.cell, turned.cell)


def test_ipi_reads_the_same_numbers(tmp_path):
    io = pytest.importorskip("ipi.utils.io")
    turned, _ = standard_orientation(crystal(np.array([[3.0, 1, 0], [0, 4, 1], [1, 0, 5]])))
    write_xyz(tmp_path / "start.xyz", turned)
    with open(tmp_path / "start.xyz") as f:
        frame = io.read_file("xyz", f)
    angstrom = 1.8897261
    assert list(frame["atoms"].names) == list(turned.symbols)
    assert np.allclose(frame["atoms"].q.reshape(-1, 3), turned.positions * angstrom, rtol=1e-15)
    assert np.allclose(frame["cell"].h.T, turned.cell * angstrom, rtol=1e-15, atol=1e-15)


def test_lengths_and_angles_are_read_too(tmp_path):
    path = tmp_path / "start.xyz"
    path.write_text(
        "1\n# CELL(abcABC): 4 5 6 90 90 120 cell{angstrom} positions{angstrom}\nCu 0 0 0\n"
    )
    expected = [[4, 0, 0], [-2.5, 5 * np.sqrt(0.75), 0], [0, 0, 6]]  # gamma is between a and b
    np.testing.assert_allclose(read_xyz(path).cell, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("comment", "attributes", "says"),
    [
        ("", {}, "no unit of its positions, which i-PI then takes as bohr"),
        ("", {"units": "angstrom"}, "no unit of its cell, which i-PI then takes as bohr"),
        ("positions{angstrom}", {}, "no unit of its cell"),
        ("cell{angstrom}", {}, "no unit of its positions"),
        ("cell{angstrom} positions{angstrom}", {"units": "atomic_unit"}, "are in atomic_unit"),
        ("cell{angstrom}", {"units": "angstrom", "cell_units": "nanometer"}, "are in nanometer"),
        ("cell{atomic_unit} positions{angstrom}", {}, "expected angstrom in the comment"),
    ],
)
def test_a_length_without_its_unit_is_not_guessed(tmp_path, comment, attributes, says):
    """i-PI reads a cell of 12.6 without unit as 6.67 Å; nobody who writes 12.6 means that."""
    path = tmp_path / "start.xyz"
    path.write_text(f"1\n# CELL(abcABC): 12.6 12.6 12.6 90 90 90 {comment}\nCu 0 0 0\n")
    with pytest.raises(InputError, match=says):
        read_xyz(path, **attributes)


def test_units_may_stand_in_the_input(tmp_path):
    path = tmp_path / "start.xyz"
    path.write_text("1\n# CELL(abcABC): 4 5 6 90 90 90\nCu 1 0 0\n")
    found = read_xyz(path, units="angstrom", cell_units="angstrom")
    assert found.cell[1, 1] == pytest.approx(5.0)


def test_columns_of_h_are_the_lattice_vectors(tmp_path):
    path = tmp_path / "start.xyz"
    path.write_text(GOOD.replace("4 0 0 0 4 0 0 0 4", "4 1 2 0 5 3 0 0 6"))
    assert read_xyz(path).cell.tolist() == [[4, 0, 0], [1, 5, 0], [2, 3, 6]]


GOOD = "2\n# CELL(H): 4 0 0 0 4 0 0 0 4 cell{angstrom} positions{angstrom}\nCu 0 0 0\nAu 1 1 1\n"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Au 1 1 1\n", "", "expected 2 atoms, found 1"),
        ("2\n", "two\n", "not an xyz file"),
        ("2\n", "-1\n", "atoms"),
        ("Au 1 1 1", "Au 1 1", "not an xyz file"),
        ("Au 1 1 1", "Au 1 1 inf", "not finite"),
        ("Au 1", "Q 1", "'Q' is not an element"),
        ("Au 1", "au 1", "did you mean 'Au'"),
        ("CELL(H)", "CELL(GENH)", "GENH"),
        ("CELL(H)", "cell", "no CELL"),
        ("4 0 0 0 4 0 0 0 4", "4 0 0 0 4 0", "only 6 numbers"),
        ("4 0 0 0 4 0 0 0 4", "4 0 0 0 4 0 0 0 1e", "expected numbers"),
        ("4 0 0 0 4 0 0 0 4", "4 0 0 0 4 0 0 0 0", "volume"),
        ("4 0 0 0 4 0 0 0 4", "4 0 0 1 4 0 0 0 4", "a along x"),
        ("4 0 0 0 4 0 0 0 4", "4 0 0 0 4 0 0 1e-4 4", "b in the xy plane"),
        ("cell{angstrom}", "cell{atomic_unit}", "angstrom"),
    ],
)
def test_a_spoilt_file_is_refused_by_name(tmp_path, old, new, says):
    path = tmp_path / "start.xyz"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=says):
        read_xyz(path)


@settings(deadline=None)
@given(st.text(alphabet="2\n# CELL(H):abcAB 40.-eEnCu{}angstrom\t", max_size=120), st.data())
def test_only_input_errors_escape(tmp_path_factory, scrap, data):
    path = tmp_path_factory.mktemp("xyz") / "start.xyz"
    cut = data.draw(st.integers(0, len(GOOD)))
    path.write_text(GOOD[:cut] + scrap + GOOD[data.draw(st.integers(cut, len(GOOD))) :])
    with contextlib.suppress(InputError):
        s = read_xyz(path)
        assert s.positions.shape == (len(s), 3)
        assert np.isfinite(s.positions).all()
        assert np.linalg.det(s.cell) > 0
