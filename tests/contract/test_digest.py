"""The digest notices whatever changes the Hamiltonian, one thing at a time."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.analysis_files import write_input

from alchemdriver.contract.digest import digest
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.springs import write_springs
from alchemdriver.records import Structure

CELL = 6.0
SITES = np.array([[0.0, 0, 0], [0, 3, 3], [3, 0, 3], [3, 3, 0]])
SMALL = 1e-9  # Å or eV/Å²: what nobody sees in a table


def moved(atom: int, by: float = SMALL) -> np.ndarray:
    found = SITES.copy()
    found[atom, 0] += by
    return found


def of_void(folder, positions=SITES, cell=CELL) -> str:
    """Atom 2 goes to void: its tether is anchored at the start, in units of the start's cell."""
    path = write_input(
        folder, "lambda: 0.5, tether: 3.0", 10, alchemy="Cu[2]->void", positions=positions,
        cell=cell,
    )  # fmt: skip
    return digest(read_input(path))


def of_einstein(folder, positions=SITES, cell=CELL, anchors=SITES, k=(1.0, 2.0, 3.0, 4.0)) -> str:
    """Springs of a file, whose anchors move with the cell from the start's on."""
    path = write_input(
        folder, "lambda: 0.5, springs: springs.extxyz", 10, alchemy="einstein->model",
        positions=positions, cell=cell,
    )  # fmt: skip
    crystal = Structure(("Cu",) * 4, anchors, np.eye(3) * CELL)
    write_springs(folder / "springs.extxyz", crystal, np.array(k))
    return digest(read_input(path))


@pytest.mark.parametrize("of", [of_void, of_einstein])
def test_the_same_input_elsewhere_has_the_same_digest(tmp_path, of):
    assert of(tmp_path / "a") == of(tmp_path / "b")


@pytest.mark.parametrize("of", [of_void, of_einstein])
def test_the_cell_that_anchors_refer_to_is_noticed(tmp_path, of):
    """Anchors are carried along with the cell, from this one on: in another they lie elsewhere."""
    assert of(tmp_path / "a") != of(tmp_path / "b", cell=CELL + SMALL)


def test_the_anchor_of_a_tether_is_noticed(tmp_path):
    """The start of the removed atom is where its tether ends; the others start where they like."""
    here = of_void(tmp_path / "a")
    assert of_void(tmp_path / "b", moved(2)) != here
    assert of_void(tmp_path / "c", moved(1, 0.1)) == here


def test_springs_are_noticed(tmp_path):
    """Each constant and each anchor of the file; not the start, which is only a configuration."""
    here = of_einstein(tmp_path / "a")
    for atom in range(4):
        k = [1.0, 2.0, 3.0, 4.0]
        k[atom] += 1e-6
        assert of_einstein(tmp_path / f"k{atom}", k=k) != here
        assert of_einstein(tmp_path / f"a{atom}", anchors=moved(atom, 1e-6)) != here
    assert of_einstein(tmp_path / "start", moved(1, 0.1)) == here
