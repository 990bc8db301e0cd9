"""i-PI's state, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from .ipi_types import Motion, Simulation, System, Thermostat


def settle(system: System) -> None:
    """Bring *system* into the state that a restart from here would be in, to the last bit.

    With several beads i-PI moves normal modes and computes beads from them, while a checkpoint
    holds beads: a resumed run has modes that were transformed once more.  So here the modes follow
    from the beads at every step; positions do not change, and nothing is evaluated again.  The heat
    of a thermostat is kept per mode and stored as a sum: it is collected in the first mode.
    """
    if system.beads.nbeads == 1:
        return
    for bead, mode in ((system.beads._q, system.nm._qnm), (system.beads._p, system.nm._pnm)):
        bead.get()  # up to date before it becomes the source
        bead._synchro.manual = bead._name
        mode.taint()
    for thermostat in thermostats(system.motion):
        collect_heat(thermostat, thermostat.ethermo)


def collect_heat(thermostat: Thermostat, total: float) -> None:
    """Let *total* (hartree) be the heat of a thermostat, exactly."""
    parts = getattr(thermostat, "_thermos", None)
    if not parts:
        return  # one bath: its heat is stored as it is
    for part in parts:
        part.ethermo = 0.0
    parts[0].ethermo = total


def thermostats(motion: Motion) -> Iterator[Thermostat]:
    """Every thermostat of the beads, also inside multi-motions and multi-thermostats."""
    for sub in getattr(motion, "mlist", []):
        yield from thermostats(sub)
    stack = [getattr(motion, "thermostat", None)]
    for thermostat in stack:
        stack += getattr(thermostat, "tlist", [])
        if hasattr(thermostat, "ethermo") and not hasattr(thermostat, "tlist"):
            yield thermostat


def load_exactly(
    xml: IO[str] | str, hook: Callable[[Simulation], None] | None = None, **options: Any
) -> Simulation:
    """i-PI's simulation from an input or a checkpoint, the latter to the last bit.

    While binding, i-PI removes the total momentum once more and shares the thermostats' heat among
    modes: rounding that a run without interruption does not have.  So the momenta and the heat of a
    checkpoint are put back as they stand there.
    hook: called with the simulation before it is bound; *options* go to i-PI's ``load_from_xml``.
    """
    from ipi.engine import simulation as engine
    from ipi.utils.depend import dstrip

    stored: list[np.ndarray] = []
    heat: list[float] = []

    def before_binding(simulation: Simulation) -> None:
        for system in simulation.syslist:
            heat.extend(float(t.ethermo) for t in thermostats(system.motion))
        # dstrip and copy: np.array of i-PI's arrays may share their memory
        stored.extend(dstrip(system.beads.p).copy() for system in simulation.syslist)
        if hook is not None:
            hook(simulation)

    simulation = engine.Simulation.load_from_xml(xml, post_init_hook=before_binding, **options)
    if simulation.step > 0:
        for system, p in zip(simulation.syslist, stored, strict=True):
            system.beads.p[:] = p
        baths = [t for system in simulation.syslist for t in thermostats(system.motion)]
        for thermostat, total in zip(baths, heat, strict=True):
            collect_heat(thermostat, total)
        if simulation.chk is not None:
            simulation.chk.store()  # what a stop before the first step would write
    return simulation
