"""i-PI as the server, with the λ clock.

λ belongs to the server: before step k → k+1 it puts λ(k+1) into the forcefield's parameters, so
that i-PI sends it with the request for the forces at x(t_{k+1}).  With interpolated masses it also
sets m(λ) and rescales the momenta.  Everything else is i-PI's own.

Order within a run (design: forces at x(t_k) belong to λ(t_k)):

    load      λ(step) and m(step) are set; nothing is cached after loading an input or a checkpoint
    prime     forces and extras are evaluated at λ(step)
    step k    λ(k+1), m(k+1) are set; the opening half-kick uses the cached forces of t_k
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np

from . import checkpoints, units
from .client import Address
from .drivers import checked_drivers
from .errors import InputError, RunError
from .inputs import RunInput, read_input
from .lock import only_server

log = logging.getLogger(__name__)


class LambdaClock:
    """Sets λ and masses from i-PI's own step; holds no clock of its own."""

    def __init__(self, run: RunInput, simulation):
        self.run = run
        self.simulation = simulation
        try:
            self.forcefield = simulation.fflist[run.forcefield]
        except KeyError:
            raise InputError(f"i-PI has no forcefield '{run.forcefield}'") from None

    @property
    def lam(self) -> float:
        return float(self.forcefield.pars["lambda"])

    def install(self) -> None:
        """Wrap ``run_step`` on the instance, so that every step starts with :func:`settle` and
        :meth:`set`."""
        stock_step = self.simulation.run_step

        def run_step(step: int) -> None:
            for system in self.simulation.syslist:
                settle(system)
            self.set(step + 1)
            stock_step(step)

        self.simulation.run_step = run_step

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


def settle(system) -> None:
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


def collect_heat(thermostat, total: float) -> None:
    """Let *total* (hartree) be the heat of a thermostat, exactly."""
    parts = getattr(thermostat, "_thermos", None)
    if not parts:
        return  # one bath: its heat is stored as it is
    for part in parts:
        part.ethermo = 0.0
    parts[0].ethermo = total


def thermostats(motion) -> Iterator:
    """Every thermostat of the beads, also inside multi-motions and multi-thermostats."""
    for sub in getattr(motion, "mlist", []):
        yield from thermostats(sub)
    stack = [getattr(motion, "thermostat", None)]
    for thermostat in stack:
        stack += getattr(thermostat, "tlist", [])
        if hasattr(thermostat, "ethermo") and not hasattr(thermostat, "tlist"):
            yield thermostat


def set_masses(system, masses: np.ndarray) -> None:
    """Give *system* new masses (N,) in electron masses, and rescale its momenta to them.

    i-PI 3.3.1 declares the integrators' ``_qdt_on_m`` without dependencies, so it is tainted here;
    all other mass-dependent quantities follow by themselves.
    """
    from ipi.utils.depend import dstrip

    beads = system.beads
    current = dstrip(beads.m).copy()
    if np.array_equal(current, masses):
        return
    p = dstrip(beads.p).reshape(beads.nbeads, -1, 3)
    beads.p[:] = rescale_momenta(p, current, masses, system.motion.fixcom).reshape(beads.p.shape)
    beads.m[:] = masses
    for integrator in integrators(system.motion):
        integrator._qdt_on_m.taint()


def rescale_momenta(p: np.ndarray, m: np.ndarray, m_new: np.ndarray, fixcom: bool) -> np.ndarray:
    """Momenta (P, N, 3) for new masses (N,), with the kinetic energy exactly as before.

    p → p √(m'/m) keeps the mass-weighted momenta π = p/√m; the kinetic work is then exactly the
    analytic term of eq. 22 at any switching speed.  With a fixed centre of mass π is orthogonal to
    u = √m and must become orthogonal to u' = √m': plain rescaling would leave a total momentum,
    whose removal does uncounted work.  So π is turned by the rotation that takes û to û':
    π' = π − (û'·π)/(1 + û·û') (û + û')   for û·π = 0.
    """
    weighted = p / np.sqrt(m)[:, None]
    if fixcom:
        u, u_new = (np.sqrt(x / x.sum()) for x in (m, m_new))
        along = np.einsum("i,bic->bc", u_new, weighted) / (1.0 + u @ u_new)
        weighted = weighted - (u + u_new)[:, None] * along[:, None, :]
    return weighted * np.sqrt(m_new)[:, None]


def integrators(motion) -> Iterator:
    """Every integrator in a motion, also inside a multi-motion."""
    for sub in getattr(motion, "mlist", []):
        yield from integrators(sub)
    integrator = getattr(motion, "integrator", None)
    if integrator is not None and hasattr(integrator, "_qdt_on_m"):
        yield integrator


def is_loopback(address: str) -> bool:
    """Whether a TCP *address* is this machine alone."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # another name
        return False


def warn_if_open(run: RunInput) -> None:
    """A line if others than this machine can reach the run's socket."""
    if run.socket.mode == "inet" and not is_loopback(run.socket.address):
        log.warning(
            "%s: port %s of %s is open to other machines, and i-PI's protocol has no "
            "authentication: use localhost and an ssh tunnel",
            run.path,
            run.socket.port,
            run.socket.address,
        )


def load_exactly(xml, hook: Callable[[object], None] | None = None, **options):
    """i-PI's simulation from an input or a checkpoint, the latter to the last bit.

    While binding, i-PI removes the total momentum once more and shares the thermostats' heat among
    modes: rounding that a run without interruption does not have.  So the momenta and the heat of a
    checkpoint are put back as they stand there.
    hook: called with the simulation before it is bound; *options* go to i-PI's ``load_from_xml``.
    """
    from ipi.engine.simulation import Simulation
    from ipi.utils.depend import dstrip

    stored: list[np.ndarray] = []
    heat: list[float] = []

    def before_binding(simulation) -> None:
        for system in simulation.syslist:
            heat.extend(float(t.ethermo) for t in thermostats(system.motion))
        # dstrip and copy: np.array of i-PI's arrays may share their memory
        stored.extend(dstrip(system.beads.p).copy() for system in simulation.syslist)
        if hook is not None:
            hook(simulation)

    simulation = Simulation.load_from_xml(xml, post_init_hook=before_binding, **options)
    if simulation.step > 0:
        for system, p in zip(simulation.syslist, stored, strict=True):
            system.beads.p[:] = p
        baths = [t for system in simulation.syslist for t in thermostats(system.motion)]
        for thermostat, total in zip(baths, heat, strict=True):
            collect_heat(thermostat, total)
        if simulation.chk is not None:
            simulation.chk.store()  # what a stop before the first step would write
    return simulation


def follow_input(simulation, forcefield, run: RunInput) -> None:
    """Where to listen and how far to go: the input rules, also over a checkpoint's own values.

    Outputs are written one after the other, checkpoints last, so that none is ever ahead of the
    rows on disk.
    """
    from ipi.engine.outputs import CheckpointOutput
    from ipi.utils.softexit import softexit

    simulation.tsteps = run.total_steps
    simulation.threading = False
    simulation.outtemplate.sort(key=lambda output: isinstance(output, CheckpointOutput))
    forcefield.socket.mode = run.socket.mode
    forcefield.socket.address = run.socket.address
    forcefield.socket.port = run.socket.port

    stock_poll = forcefield.poll

    def poll() -> None:
        try:
            stock_poll()
        except Exception as err:
            # It runs in a thread of its own, which would end and leave i-PI waiting forever.
            log.exception("the socket server failed")
            print(f"error: the socket server failed: {err}", file=sys.stderr)
            softexit.trigger(status="restartable", message=" the socket server failed")

    forcefield.poll = poll


def serve(
    input_file: Path | str,
    *,
    restart: Path | None = None,
    sockets_prefix: str | None = None,
) -> None:
    """Run i-PI on *input_file* until it is done, stopped or fails; ends the process as i-PI does.

    restart: a checkpoint to continue from; λ and masses follow from its step.
    sockets_prefix: replaces the input's prefix of unix socket names.
    Raises InputError for a bad input, RunError if the socket cannot be opened or the checkpoint
    belongs to another run.
    """
    run = read_input(Path(input_file).resolve())
    if run.schedule is not None and run.parameters.digest is None:
        raise InputError(
            "a schedule needs a digest so that clients can check what they compute: "
            "'alchemdriver run' and 'prepare' write it"
        )
    source = run.path if restart is None else Path(restart).resolve()
    warn_if_open(run)
    where = f"port {run.socket.port} of {run.socket.address}"
    if run.socket.mode != "inet":
        where = Address.unix((sockets_prefix or run.socket.prefix) + run.socket.address, prefix="")
    if restart is not None:
        checkpoints.load(source, run)
    os.chdir(run.folder)

    from ipi.engine.outputs import CheckpointOutput
    from ipi.utils.softexit import softexit

    clock: list[LambdaClock] = []

    def hook(simulation) -> None:
        clock.append(LambdaClock(run, simulation))
        follow_input(simulation, clock[0].forcefield, run)
        clock[0].set_lambda(simulation.step)  # masses wait until i-PI has drawn the velocities
        clock[0].install()

    with only_server(run.folder), checked_drivers(clock), open(source) as xml:
        (run.folder / "EXIT").unlink(missing_ok=True)  # of an earlier stop: it would end this run
        try:
            simulation = load_exactly(
                xml,
                hook,
                sockets_prefix=sockets_prefix or run.socket.prefix,
            )
        except (OSError, RuntimeError) as err:
            raise RunError(f"i-PI cannot listen on {where}: {err}") from None
        except (ValueError, KeyError, TypeError, NameError) as err:
            raise InputError(f"i-PI refuses {source.name}: {' '.join(str(err).split())}") from None
        for output in [*simulation.outputs, simulation.chk]:
            if isinstance(output, CheckpointOutput):
                checkpoints.make_safe(output, simulation)
            else:
                checkpoints.sync_at_checkpoints(output)
        softexit.hard_exit = True
        clock[0].prime()
        try:
            simulation.run()
        except OSError as err:
            _give_up(err, run)
        softexit.trigger(status=simulation.exit_status, message=simulation.exit_message)


def _give_up(err: OSError, run: RunInput) -> NoReturn:
    """End at once where outputs cannot be written: what is on disk stays as it is.

    i-PI would go on to close its files, which fails again, and write a RESTART, which may not fit.
    """
    what = err.strerror or str(err)
    where = "" if err.filename is None else f" ({err.filename})"
    print(
        f"error: outputs in {run.folder} cannot be written: {what}{where}; what is there up to the "
        "last checkpoint is intact: make room, then run again to continue",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)
