"""The λ clock."""

from __future__ import annotations

import numpy as np

from .. import units
from ..contract.run_input import RunInput
from ..errors import InputError, RunError
from .exact import settle
from .ipi_types import Forcefield, Simulation
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
        for system in self.simulation.syslist:
            system.forces.f  # noqa: B018  (a depend object: reading it evaluates)
            system.forces.extras  # noqa: B018
