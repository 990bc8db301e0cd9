"""Held atoms and the fixed centre of mass: a checkpoint knows them, and an edited input is refused.

i-PI goes on from what its checkpoint says; an analysis that believed the input would add eqs. 19
and 21 to a run of another ensemble.
"""

from __future__ import annotations

import pytest
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import RunError
from alchemdriver.server import checkpoints


def hold(text: str) -> str:
    return text.replace("<fixcom>True</fixcom>", "<fixatoms>[0]</fixatoms>")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with one held atom through real i-PI, whose last checkpoint i-PI wrote itself."""
    path = rr.oscillator_run(
        tmp_path_factory.mktemp("held") / "a", "nvt-fixed", lambda_=0.5, steps=20, edit=hold
    )
    done = rr.command("run", path.parent)
    assert done.returncode == 0, done.stderr
    return path


def test_a_checkpoint_of_ipi_holds_the_same_atoms(finished):
    run = read_input(finished)
    assert run.held == (0, 1, 2)
    assert not run.fixes_centre_of_mass
    assert checkpoints.latest(run).step == 20


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<fixatoms>[0]</fixatoms>", "<fixatoms>[1]</fixatoms>"),
        ("<fixatoms>[0]</fixatoms>", "<fixatoms_dof>[0]</fixatoms_dof>"),
        ("<fixatoms>[0]</fixatoms>", "<fixcom>True</fixcom>"),
    ],
)
def test_other_constraints_are_refused_on_resume(finished, old, new):
    text = finished.read_text()
    assert old in text
    try:
        finished.write_text(text.replace(old, new))
        with pytest.raises(RunError, match=r"fixcom|fixatoms"):
            checkpoints.latest(read_input(finished))
    finally:
        finished.write_text(text)


def test_the_same_atoms_in_another_spelling_go_on(finished):
    text = finished.read_text()
    try:
        finished.write_text(
            text.replace("<fixatoms>[0]</fixatoms>", "<fixatoms_dof>[2, 0, 1]</fixatoms_dof>")
        )
        assert checkpoints.latest(read_input(finished)).step == 20
    finally:
        finished.write_text(text)
