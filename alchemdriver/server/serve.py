"""i-PI as the server, with the λ clock.

λ belongs to the server: before step k → k+1 it puts λ(k+1) into the forcefield's parameters, so
that i-PI sends it with the request for the forces at x(t_{k+1}).  With interpolated masses it also
sets m(λ) and rescales the momenta.  Everything else is i-PI's own.

Order within a run (forces at x(t_k) belong to λ(t_k)):

    load      λ(step) and m(step) are set; nothing is cached after loading an input or a checkpoint
    prime     forces and extras are evaluated at λ(step)
    step k    λ(k+1), m(k+1) are set; the opening half-kick uses the cached forces of t_k
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from ..contract import origin
from ..contract.address import Address
from ..contract.run_input import RunInput, read_input
from ..contract.secret import make_secret
from ..errors import InputError, RunError
from . import checkpoints
from .clock import LambdaClock
from .exact import load_exactly
from .ipi_types import Forcefield, Simulation
from .leftovers import remove_dead_segments
from .lock import only_server

log = logging.getLogger(__name__)


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
            "%s: port %s of %s is open to other machines, and %s: use localhost and an ssh tunnel",
            run.path,
            run.socket.port,
            run.socket.address,
            "nothing is encrypted" if run.needs_secret else "whoever connects may send results",
        )


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
    prefix = sockets_prefix or run.socket.prefix
    where = listens_on(run, prefix)
    warn_if_open(run)
    step = 0 if restart is None else checkpoints.load(source, run).step
    if run.socket.mode == "shm":
        remove_dead_segments()
    os.chdir(run.folder)

    clock = LambdaClock(run)
    with only_server(run.folder):
        (run.folder / "EXIT").unlink(missing_ok=True)  # of an earlier stop: it would end this run
        with open(source, encoding="utf-8") as xml:
            try:
                load_exactly(xml, partial(before_binding, clock), sockets_prefix=prefix)
            except (OSError, RuntimeError) as err:
                raise RunError(f"i-PI cannot listen on {where}: {err}") from None
            except (ValueError, KeyError, TypeError, NameError, OverflowError) as err:
                reason = " ".join(str(err).split())
                raise InputError(f"i-PI refuses {source.name}: {reason}") from None
        if step == 0:
            origin.begin(run)
        else:
            origin.go_on(run, step)
        write_safely(clock.simulation)
        run_to_the_end(clock)


def listens_on(run: RunInput, prefix: str) -> str:
    """Where clients connect, in words; InputError for a path that no socket can have."""
    if run.socket.mode == "inet":
        return f"port {run.socket.port} of {run.socket.address}"
    return str(Address.unix(prefix + run.socket.address, prefix=""))


def before_binding(clock: LambdaClock, simulation: Simulation) -> None:
    """What must be so before i-PI binds *simulation*, opens its sockets and reads λ."""
    clock.attach(simulation)
    follow_input(simulation, clock.forcefield, clock.run)
    guard_ports(simulation, clock)


def guard_ports(simulation: Simulation, clock: LambdaClock) -> None:
    """Our :class:`~.port.Port` in the place of every socket interface; clients of the alchemical
    one have to prove the run's secret, if it needs one."""
    from ipi.engine.forcefields import FFSocket

    from .port import Port

    printed = {getattr(output, "extra_type", "raw") for output in simulation.outtemplate}
    combined = {
        key
        for system in simulation.syslist
        for force in system.fcomp
        for key in force.interpolate_extras
    }
    keys = len(printed | combined | {"lambda", "dHdlambda"})
    for forcefield in simulation.fflist.values():
        if not isinstance(forcefield, FFSocket):
            continue
        if forcefield is not clock.forcefield:
            forcefield.socket = Port(forcefield.socket, keys, None, None)
            continue
        secret_of = partial(make_secret, clock.run.folder) if clock.run.needs_secret else None
        forcefield.socket = Port(forcefield.socket, keys, clock, secret_of)


def follow_input(simulation: Simulation, forcefield: Forcefield, run: RunInput) -> None:
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
    forcefield.socket.timeout = run.socket.timeout

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


def write_safely(simulation: Simulation) -> None:
    """Let every output of *simulation* survive a kill."""
    from ipi.engine.outputs import CheckpointOutput

    for output in [*simulation.outputs, simulation.chk]:
        if isinstance(output, CheckpointOutput):
            checkpoints.make_safe(output, simulation)
        else:
            checkpoints.sync_at_checkpoints(output)


def run_to_the_end(clock: LambdaClock) -> None:
    """All steps from where the simulation is; then i-PI writes its RESTART and ends the process."""
    from ipi.utils.softexit import softexit

    simulation = clock.simulation
    softexit.hard_exit = True
    clock.prime()
    try:
        simulation.run()
    except OSError as err:
        _give_up(err, clock.run)
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
