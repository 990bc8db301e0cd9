"""i-PI's xyz trajectories: whole frames only, the last branch of a resumed run, drift taken out."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver.analysis.files.trajectory import read_trajectory
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError


@pytest.fixture
def run(tmp_path):
    return read_input(rr.oscillator_run(tmp_path / "a", "nvt", alchemy=None, steps=40))


def frame(run, step: int, shift: float = 0.0) -> str:
    cell = run.structure.cell[0, 0]
    head = f"# CELL(abcABC): {cell} {cell} {cell} 90.0 90.0 90.0 Step: {step:11d} Bead: 0 "
    head += "positions{angstrom}  cell{angstrom}"
    rows = [f"Cu {x + shift:.5e} {y:.5e} {z:.5e}" for x, y, z in run.structure.positions]
    return "\n".join([str(len(rows)), head, *rows]) + "\n"


def test_a_real_run_is_read_frame_by_frame(run):
    assert rr.command("run", run.folder).returncode == 0
    trajectory = read_trajectory(run)
    assert trajectory.steps.tolist() == [0, 10, 20, 30, 40]
    assert np.allclose(trajectory.positions[0], run.structure.positions, atol=1e-4)
    assert np.allclose(trajectory.cells, run.structure.cell, atol=1e-4)


def test_the_later_branch_counts_and_torn_frames_are_left_out(run):
    path = run.output("pos_0.xyz")
    torn = frame(run, 30)[:-40]  # a kill in the middle of a row
    path.write_text(frame(run, 0) + frame(run, 10) + frame(run, 20) + torn)
    assert read_trajectory(run).steps.tolist() == [0, 10, 20]
    path.write_text(path.read_text() + frame(run, 20, 0.5) + frame(run, 30, 0.5))
    again = read_trajectory(run)
    assert again.steps.tolist() == [0, 10, 20, 30]
    assert again.positions[2, 0, 0] == pytest.approx(run.structure.positions[0, 0] + 0.5)


def test_what_cannot_be_read_is_said(run):
    with pytest.raises(AnalysisError, match="cannot be read"):
        read_trajectory(run)
    run.output("pos_0.xyz").write_text("4\n# no frame\n")
    with pytest.raises(AnalysisError, match="no whole frame of 4 atoms"):
        read_trajectory(run)
    run.output("pos_0.xyz").write_text(frame(run, 0).replace("angstrom", "atomic_unit"))
    with pytest.raises(AnalysisError, match="in angstrom"):
        read_trajectory(run)


def test_displacements_do_not_show_drift_or_images(run):
    path = run.output("pos_0.xyz")
    path.write_text(frame(run, 0) + frame(run, 10, 3.0))  # everything shifted, past the half cell
    sites = run.structure.positions @ np.linalg.inv(run.structure.cell)
    u = read_trajectory(run).displacements(sites, run.initial_masses)
    assert np.abs(u).max() < 1e-5
