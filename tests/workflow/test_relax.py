"""A relaxation that is interrupted goes on from its last step, to the last bit."""

from __future__ import annotations

import shutil

import ase.io
import pytest
from frozen import freeze

from alchemdriver.contract.relaxation import Relaxation
from alchemdriver.contract.xyz import write_xyz
from alchemdriver.errors import RunError
from alchemdriver.execute.relaxing import read_relaxation
from alchemdriver.records import Structure
from alchemdriver.workflow import relax


@pytest.fixture
def stage(tmp_path):
    """A crystal under pressure, of wrong size, its atoms off their sites."""
    folder = tmp_path / "01-relax"
    folder.mkdir()
    freeze.coupled_crystal(tmp_path)
    atoms = ase.io.read(tmp_path / "alni.xyz")
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    atoms.rattle(0.02, seed=3)
    start = Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, atoms.cell.array)
    write_xyz(folder / "start.xyz", start)
    Relaxation("../crystal.json", 1000.0, keep_symmetry=False).write(folder / "relax.json")
    return folder


class Killed(Exception):
    pass


def test_interruptions_change_no_bit(stage, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    shutil.copytree(stage, whole)
    relax.relax(whole)
    steps = relax.evaluations(whole) - 1
    assert steps > 12
    stock = relax._write
    for stop in (1, 4, steps // 2, steps - 1):

        def write(folder, atoms, optimizer, text, stop=stop):
            stock(folder, atoms, optimizer, text)
            if optimizer.nsteps == stop:
                raise Killed

        monkeypatch.setattr(relax, "_write", write)
        with pytest.raises(Killed):
            relax.relax(stage)
        assert read_relaxation(stage / "relax.json").step == stop
    monkeypatch.setattr(relax, "_write", stock)
    relax.relax(stage)
    assert (stage / "relaxed.xyz").read_bytes() == (whole / "relaxed.xyz").read_bytes()
    assert relax.evaluations(stage) == steps + 1


def test_more_steps_go_on_and_another_start_begins_again(stage):
    settings = Relaxation("../crystal.json", 1000.0, keep_symmetry=False, most_steps=5)
    settings.write(stage / "relax.json")
    with pytest.raises(RunError, match=r"not relaxed after 5 steps .* raise most_steps"):
        relax.relax(stage)
    Relaxation("../crystal.json", 1000.0, keep_symmetry=False).write(stage / "relax.json")
    assert relax._read(stage).steps == 5
    with open(stage / "start.xyz", "a") as f:
        f.write("\n")
    assert relax._read(stage) is None
