"""Changing masses inside a running i-PI: every quantity that depends on them must follow.

The reference knows nothing of the change: the state right after it is written to a checkpoint and
loaded afresh, so that everything is computed from the new masses.  A stale cached mass anywhere in
the integrator, thermostat or barostat makes the two trajectories part.
"""

from __future__ import annotations

import numpy as np
import pytest

from alchemdriver import units
from alchemdriver.contract.xyz import write_xyz
from alchemdriver.records import Structure
from alchemdriver.server import exact
from alchemdriver.server import masses as changing

ENSEMBLES = {
    "nve": ("nve", "", ""),
    "nvt langevin": ("nvt", "", "<thermostat mode='langevin'><tau>4000</tau></thermostat>"),
    "nvt svr": ("nvt", "", "<thermostat mode='svr'><tau>4000</tau></thermostat>"),
    "nvt gle": (
        "nvt",
        "",
        "<thermostat mode='gle'><A shape='(2,2)'>[1e-3, 4e-4, -4e-4, 2e-4]</A></thermostat>",
    ),
    "pile_l": ("nvt", "", "<thermostat mode='pile_l'><tau>4000</tau></thermostat>"),
    "pile_g": ("nvt", "", "<thermostat mode='pile_g'><tau>4000</tau></thermostat>"),
    "npt pile_l": (
        "npt",
        "<barostat mode='isotropic'><tau>10000</tau>"
        "<thermostat mode='langevin'><tau>9000</tau></thermostat></barostat>",
        "<thermostat mode='pile_l'><tau>4000</tau></thermostat>",
    ),
    "npt isotropic": (
        "npt",
        "<barostat mode='isotropic'><tau>10000</tau>"
        "<thermostat mode='langevin'><tau>9000</tau></thermostat></barostat>",
        "<thermostat mode='langevin'><tau>4000</tau></thermostat>",
    ),
    "npt flexible": (
        "npt",
        "<barostat mode='flexible'><tau>10000</tau>"
        "<thermostat mode='langevin'><tau>9000</tau></thermostat></barostat>",
        "<thermostat mode='langevin'><tau>4000</tau></thermostat>",
    ),
    "nst anisotropic": (
        "nst",
        "<barostat mode='anisotropic'><tau>10000</tau>"
        "<h0 shape='(3,3)' units='angstrom'>[5,0,0,0,5,0,0,0,5]</h0>"
        "<thermostat mode='langevin'><tau>9000</tau></thermostat></barostat>",
        "<thermostat mode='svr'><tau>4000</tau></thermostat>",
    ),
}
XML = """<simulation verbosity='quiet' floatformat='%24.16e'>
  <output prefix='m'></output>
  <total_steps>1000</total_steps>
  <prng><seed>5</seed></prng>
  <ffdirect name='f'><pes>harmonic</pes><parameters>{{k1: 0.05}}</parameters></ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz' units='angstrom'>start.xyz</file>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces><force forcefield='f'/></forces>
    <ensemble><temperature units='kelvin'>300</temperature>{pressure}</ensemble>
    <motion mode='dynamics'><fixcom>{fixcom}</fixcom>
      <dynamics mode='{mode}'><timestep units='femtosecond'>1</timestep>{barostat}{thermostat}
      </dynamics>
    </motion>
  </system>
</simulation>"""


@pytest.fixture(autouse=True)
def signals_stay_ours():
    """A simulation takes over Ctrl-C and SIGTERM, for good: stopping the tests would write a
    RESTART of every one of them into the working directory."""
    yield
    from ipi.utils.softexit import softexit

    softexit.reset()


def load(text):
    return exact.load_exactly(text, custom_verbosity="quiet")


def advance(simulation, steps):
    for step in range(simulation.step, simulation.step + steps):
        simulation.syslist[0].motion.step(step=step)
        simulation.step = step + 1


def state(simulation):
    system = simulation.syslist[0]
    from ipi.utils.depend import dstrip

    return [dstrip(a).copy() for a in (system.beads.q, system.beads.p, system.cell.h)]


def start(name, fixcom, folder, beads=1):
    mode, barostat, thermostat = ENSEMBLES[name]
    structure = Structure(
        ("Cu", "Cu", "Pb"), np.array([[0.1, 0, 0], [2.0, 0.2, 0], [0, 2.0, 2.2]]), np.eye(3) * 5.0
    )
    write_xyz(folder / "start.xyz", structure)
    pressure = "<pressure units='bar'>1</pressure><stress units='bar'>[1,0,0,0,1,0,0,0,1]</stress>"
    return load(
        XML.format(
            mode=mode,
            barostat=barostat,
            thermostat=thermostat,
            fixcom=fixcom,
            beads=beads,
            pressure=pressure if barostat else "",
        )
    )


def reloaded(simulation):
    """What a restart from this very moment would be."""
    simulation.chk.store()
    simulation.chk.status.step.store(simulation.step)
    return load(simulation.chk.status.write(name="simulation"))


@pytest.mark.parametrize("fixcom", [True, False])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_new_masses_are_used_everywhere(name, fixcom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changed = start(name, fixcom, tmp_path)
    advance(changed, 5)
    system = changed.syslist[0]
    kinetic = float(system.nm.kin)
    new = np.array([100.0, 150.0, 20.0]) * units.DALTON
    changing.set_masses(system, new)
    # p → p √(m'/m) leaves the kinetic energy as it was: momenta do no kinetic work
    assert float(system.nm.kin) == pytest.approx(kinetic, rel=1e-12)
    if fixcom:  # a total momentum would be taken out in the next step, and its work not counted
        total = np.array(system.beads.p).reshape(-1, 3).sum(axis=0)
        assert np.abs(total).max() < 1e-12 * np.abs(np.array(system.beads.p)).max()

    fresh = reloaded(changed)
    assert np.array_equal(np.array(fresh.syslist[0].beads.m), new)
    advance(changed, 6)
    advance(fresh, 6)
    for a, b in zip(state(changed), state(fresh), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["nvt langevin", "nvt svr", "npt isotropic", "npt flexible"])
def test_a_checkpoint_loads_to_the_last_bit_at_every_step(name, tmp_path, monkeypatch):
    """Whole trajectories hide rounding that happens to vanish; here every step is a restart."""
    monkeypatch.chdir(tmp_path)
    simulation = start(name, True, tmp_path)
    masses = np.array([63.5, 63.5, 207.2]) * units.DALTON

    def step(s):
        changing.set_masses(s.syslist[0], masses * (1 + 0.01 * s.step * np.array([1.0, 0.5, -0.3])))
        advance(s, 1)

    step(simulation)
    for _ in range(20):
        fresh = reloaded(simulation)
        step(simulation)
        step(fresh)
        assert all(map(np.array_equal, state(simulation), state(fresh)))


@pytest.mark.parametrize("name", ["nve", "pile_l", "pile_g", "npt pile_l"])
def test_beads_load_to_the_last_bit_at_every_step(name, tmp_path, monkeypatch):
    """Normal modes, which i-PI moves, are not in a checkpoint; nor is the heat of each mode."""
    monkeypatch.chdir(tmp_path)
    simulation = start(name, True, tmp_path, beads=3)

    def step(s):
        exact.settle(s.syslist[0])
        advance(s, 1)

    def everything(s):
        system = s.syslist[0]
        modes = [dstrip(x).copy() for x in (system.nm.qnm, system.nm.pnm)]
        return [*state(s), *modes, np.array(float(system.ensemble.econs))]

    from ipi.utils.depend import dstrip

    step(simulation)
    for _ in range(20):
        fresh = reloaded(simulation)
        step(simulation)
        step(fresh)
        assert all(map(np.array_equal, everything(simulation), everything(fresh)))


def test_settling_evaluates_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulation = start("pile_l", True, tmp_path, beads=3)
    step_before = simulation.syslist[0].forces.f.copy()
    monkeypatch.setattr(type(simulation.fflist["f"]), "queue", None)  # any request would fail
    exact.settle(simulation.syslist[0])
    assert np.array_equal(simulation.syslist[0].forces.f, step_before)


def test_the_check_above_sees_a_stale_mass(tmp_path, monkeypatch):
    """Without tainting ``_qdt_on_m`` the centroid moves with the old mass."""
    monkeypatch.setattr(changing, "integrators", lambda motion: iter(()))
    with pytest.raises(AssertionError, match="Not equal"):
        test_new_masses_are_used_everywhere("nvt langevin", False, tmp_path, monkeypatch)


def test_rescaled_momenta_keep_kinetic_energy_and_total_momentum():
    rng = np.random.default_rng(3)
    m, new = rng.uniform(1, 100, 6), rng.uniform(1, 100, 6)
    p = rng.normal(size=(2, 6, 3)) * np.sqrt(m)[:, None]
    p -= m[:, None] / m.sum() * p.sum(axis=1, keepdims=True)  # total momentum 0
    q = changing.rescale_momenta(p, m, new, fixcom=True)
    before, after = (np.sum(x**2 / w[:, None]) for x, w in ((p, m), (q, new)))
    assert after == pytest.approx(before, rel=1e-14)
    np.testing.assert_allclose(q.sum(axis=1), 0.0, atol=1e-12)
    # back again is the inverse, so forward and backward switches mirror each other
    np.testing.assert_allclose(changing.rescale_momenta(q, new, m, fixcom=True), p, rtol=1e-12)
    free = changing.rescale_momenta(p, m, new, fixcom=False)
    np.testing.assert_allclose(free, p * np.sqrt(new / m)[:, None], rtol=1e-14)
