"""The λ clock."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import units
from ..contract.run_input import RunInput
from ..errors import InputError, RunError
from .exact import settle
from .ipi_types import Forcefield, Motion, Simulation
from .masses import set_masses


class LambdaClock:
    """Sets λ and masses from i-PI's own step; holds no clock of its own."""

    simulation: Simulation  # both from `attach` on
    forcefield: Forcefield

    def __init__(self, run: RunInput):
        self.run = run

    @property
    def lam(self) -> float:
        return float(self.forcefield.pars["lambda"])

    def attach(self, simulation: Simulation) -> None:
        """Go by *simulation*, which need not be bound yet: λ of its step is set, and every step
        starts with :func:`settle` and :meth:`set` (``run_step`` is wrapped on the instance)."""
        try:
            self.forcefield = simulation.fflist[self.run.forcefield]
        except KeyError:
            raise InputError(f"i-PI has no forcefield '{self.run.forcefield}'") from None
        self.simulation = simulation
        self.set_lambda(simulation.step)  # masses wait until i-PI has drawn the velocities
        stock_step = simulation.run_step

        def run_step(step: int) -> None:
            for system in simulation.syslist:
                settle(system)
            self.set(step + 1)
            stock_step(step)

        simulation.run_step = run_step

    def set(self, step: int) -> None:
        """λ and, if they follow it, masses and momenta of time point *step*."""
        lam = self.set_lambda(step)
        # At fixed λ masses are what the XML says, as under stock i-pi.
        if self.run.schedule is not None and self.run.interpolates_masses:
            for system in self.simulation.syslist:
                set_masses(system, self.run.masses(lam) * units.DALTON)

    def set_lambda(self, step: int) -> float:
        """λ of time point *step*, put where i-PI takes the next request's parameters from."""
        lam = self.run.lam_at(step)
        self.forcefield.pars["lambda"] = repr(lam)
        return lam

    def check_masses(self) -> None:
        """RunError if i-PI moves other masses than the input means (and the analysis assumes)."""
        run = self.run
        meant = run.masses(self.lam) if run.interpolates_masses else run.held_masses
        for system in self.simulation.syslist:
            used = np.asarray(system.beads.m) / units.DALTON
            wrong = np.abs(used / meant - 1.0) > 1e-6  # i-PI's table of elements is not ASE's
            if wrong.any():
                i = int(np.argmax(wrong))
                raise RunError(
                    f"atom {i} has {used[i]:.6g} u in i-PI but the input means {meant[i]:.6g} u: "
                    "write <masses mode='manual' units='dalton'> for this lambda, or change the "
                    "'masses' key"
                )

    def prime(self) -> None:
        """Evaluate forces and extras at the loaded step; the first half-kick uses them."""
        self.set(self.simulation.step)
        self.check_masses()
        check_loaded(self.run, self.simulation)
        for system in self.simulation.syslist:
            system.forces.f  # noqa: B018  (a depend object: reading it evaluates)
            system.forces.extras  # noqa: B018


def check_loaded(run: RunInput, simulation: Simulation) -> None:
    """RunError where i-PI runs something else than *run* was understood as.

    Everybody but i-PI goes by the contract's reading of the input: what that misses must not be
    noticed when the numbers are published.  Positions and cell are compared at step 0, where the
    xyz file alone gives them.
    """
    from ipi.utils.depend import dstrip

    for system in simulation.syslist:
        ensemble = system.ensemble
        pairs = [
            ("temperature", float(ensemble.temp) / units.KELVIN, run.temperature, "K"),
            ("number of beads", float(system.beads.nbeads), float(run.beads), ""),
        ]
        if run.constant_pressure:
            pairs.append(("pressure", float(ensemble.pext) / units.BAR, run.pressure, "bar"))
        for dt in time_steps(system.motion):
            pairs.append(("time step", dt / units.FEMTOSECOND, run.timestep, "fs"))
        for name, there, here, unit in pairs:
            if here is not None and abs(there - here) > 1e-6 * max(1.0, abs(here)):
                raise RunError(
                    f"i-PI runs with a {name} of {there:.6g} {unit}, but {run.path.name} was "
                    f"understood as {here:.6g} {unit}: give it once"
                )
        if simulation.step > 0:
            continue
        cell = dstrip(system.cell.h).T / units.ANGSTROM
        positions = dstrip(system.beads.q)[0].reshape(-1, 3) / units.ANGSTROM
        for name, found, expected in (
            ("cell", cell, run.structure.cell),
            ("positions", positions, run.structure.positions),
        ):
            off = float(np.abs(found - expected).max())
            if off > 1e-5:
                raise RunError(
                    f"i-PI starts with other {name} than {run.path.name} was understood as (by "
                    f"{off:.3g} Å): check the units of the structure file and of its <file>"
                )


def time_steps(motion: Motion) -> Iterator[float]:
    """Δt (atomic units) of every dynamics in a motion, also inside a multi-motion."""
    for sub in getattr(motion, "mlist", []):
        yield from time_steps(sub)
    if hasattr(motion, "integrator"):
        yield float(motion.dt)
