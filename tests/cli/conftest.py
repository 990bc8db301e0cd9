"""A folder of runs, and commands that are refused in one line and change nothing."""

from __future__ import annotations

import shutil
import sys

import pytest
from ase import Atoms
from ase.io import write
from helpers import real_runs as rr
from helpers.refusals import POSCAR, is_one_line, tree

from alchemdriver.cli import main


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One folder that all cases share: a structure, models, a switch and a fixed-λ run."""
    home = tmp_path_factory.mktemp("house")
    s = rr.oscillators(home)
    atoms = Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True)
    write(home / POSCAR, atoms, format="vasp")
    lengths = {"equilibrate": 5, "switch": 10, "cycles": 1}
    rr.oscillator_run(home / "switch", **lengths)
    rr.oscillator_run(home / "fixed", "nvt-fixed", lambda_=0.5, steps=20)
    rr.oscillator_run(home / "beads", "pimd-fixed", lambda_=0.5, steps=20)
    return home


@pytest.fixture
def folder(house, tmp_path, monkeypatch):
    """A fresh copy of the house, as the working directory."""
    copy = tmp_path / "h"
    shutil.copytree(house, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    """refused(args…, says=words): the command is refused, in this process; nothing changes."""

    def run(*args, says):
        before = tree(folder)
        monkeypatch.setattr(sys, "argv", ["alchemdriver", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main.main()
        out, err = capsys.readouterr()
        is_one_line(stop.value.code, err, *([says] if isinstance(says, str) else says))
        assert out == ""
        assert tree(folder) == before

    return run


@pytest.fixture
def refused_outside(folder):
    """The same through a process of its own."""

    def run(*args, says):
        before = tree(folder)
        done = rr.command(*args, cwd=folder)
        is_one_line(done.returncode, done.stderr, *([says] if isinstance(says, str) else says))
        assert tree(folder) == before

    return run
