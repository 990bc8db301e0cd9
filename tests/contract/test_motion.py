"""Which motion decides the ensemble, also inside ``<motion mode='multi'>``."""

from __future__ import annotations

import pytest
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import InputError, RunError
from alchemdriver.server import checkpoints


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
