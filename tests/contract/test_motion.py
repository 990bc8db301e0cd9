"""Which motion decides the ensemble, also inside ``<motion mode='multi'>``."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.springs import write_springs
from alchemdriver.errors import InputError, RunError
from alchemdriver.paths import Given
from alchemdriver.server import checkpoints
from alchemdriver.units import kT


def wrapped(text: str, more: str = "") -> str:
    start = text.index('<motion mode="dynamics">')
    end = text.index("</motion>") + len("</motion>")
    return text[:start] + f"<motion mode='multi'>{text[start:end]}{more}</motion>" + text[end:]


@pytest.fixture
def fixed(tmp_path):
    path = rr.oscillator_run(tmp_path / "a", "nvt-fixed", lambda_=0.5, steps=20, timestep=2.0)
    return path, path.read_text()


def test_dynamics_inside_a_multi_motion_are_read_as_without_it(fixed):
    path, text = fixed
    plain = read_input(path)
    path.write_text(wrapped(text))
    inside = read_input(path)
    assert inside.motion == "multi"
    for name in ("ensemble", "timestep", "temperature", "constant_pressure", "held"):
        assert getattr(inside, name) == getattr(plain, name)
    assert inside.ensemble == "nvt"
    assert inside.timestep == pytest.approx(2.0)


def test_another_time_step_inside_is_refused_on_resume(fixed):
    path, text = fixed
    restart = path.with_name("RESTART")
    restart.write_text(wrapped(text).replace("<total_steps>", "<step>5</step><total_steps>"))
    path.write_text(wrapped(text).replace(">2.0</timestep>", ">8.0</timestep>"))
    with pytest.raises(RunError, match="timestep"):
        checkpoints.load(restart, read_input(path))


def test_two_dynamics_sample_no_ensemble(fixed):
    path, text = fixed
    start, end = text.index('<motion mode="dynamics">'), text.index("</motion>") + 9
    path.write_text(wrapped(text, more=text[start:end]))
    with pytest.raises(InputError, match="2 dynamics"):
        read_input(path)


def test_a_schedule_wants_dynamics_alone(tmp_path):
    path = rr.oscillator_run(tmp_path / "a", equilibrate=5, switch=10, cycles=1)
    path.write_text(wrapped(path.read_text()))
    with pytest.raises(InputError, match="a schedule needs <motion mode='dynamics'>"):
        read_input(path)


def edited(path, *pairs):
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_frenkel_ladd_with_a_free_centre_of_mass_is_refused(tmp_path):
    """At λ = 1 nothing holds the crystal: eq. 19 was dropped without a word."""
    structure = rr.oscillators(tmp_path)
    write_springs(tmp_path / "e.extxyz", structure, np.full(4, 3.0))
    path = rr.oscillator_run(
        tmp_path / "a",
        equilibrate=5,
        switch=10,
        cycles=1,
        alchemy="einstein->model",
        springs=tmp_path / "e.extxyz",
    )
    edited(path, ("<fixcom>True<", "<fixcom>False<"))
    with pytest.raises(InputError, match="einstein->model with <fixcom> False: eq"):
        read_input(path)


def test_held_coordinates_have_no_momentum(tmp_path):
    """One atom and one coordinate of another do not move: 8 of 12 count, in every term."""
    held = (
        "<fixcom>True</fixcom>",
        "<fixcom>False</fixcom><fixatoms_dof>[0, 1, 2, 4]</fixatoms_dof>",
    )
    path = rr.oscillator_run(tmp_path / "a", equilibrate=5, switch=10, cycles=1)
    run = read_input(edited(path, held))
    (mass,) = run.lambda_path.corrections(run, Given())
    per_coordinate = 0.5 * kT(300.0) * np.log(run.initial_masses[0] / run.final_masses[0])
    assert mass.value == pytest.approx(8 * per_coordinate)
    path = rr.oscillator_run(
        tmp_path / "b", equilibrate=5, switch=10, cycles=1, alchemy="model->scaled", scale=0.5
    )
    run = read_input(edited(path, held))
    (kinetic,) = run.lambda_path.corrections(run, Given())
    assert kinetic.value == pytest.approx(-0.5 * 8 * kT(600.0) * np.log(2.0))
    assert "−1/2 f k T ln(T/T0), 8 coordinates" in kinetic.source


def test_beads_and_a_held_atom_whose_mass_changes_are_refused(tmp_path):
    path = rr.oscillator_run(
        tmp_path / "a", "switch-pimd", beads=4, equilibrate=5, switch=10, cycles=1
    )
    edited(path, ("<fixcom>True</fixcom>", "<fixcom>False</fixcom><fixatoms>[0]</fixatoms>"))
    with pytest.raises(InputError, match="holds atom 0, whose mass changes, with 4 beads"):
        read_input(path)
