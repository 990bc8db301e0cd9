"""The ``alchemdriver`` command.  Every error a user can meet is one line and exit status 2."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from .. import __version__
from ..composition import cli as composition
from ..contract.text import parse_list, parse_wall_time
from ..errors import AlchemdriverError, InputError
from ..prepare.options import model_names
from . import campaign
from .adopt import adopt
from .prepare import Protocols

app = typer.Typer(
    name="alchemdriver",
    help="Alchemical free energies with MACE potentials, driven by i-PI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TRY_AGAIN = 75  # exit status EX_TEMPFAIL: all is well, but not done

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Dtype = Annotated[str | None, typer.Option(help="float64 or float32; default: the input's")]
Evaluator = Annotated[str, typer.Option(help="auto, fast, cueq or stock; of MACE models.")]
Prefix = Annotated[str | None, typer.Option(help="Prefix of unix socket names.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alchemdriver {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    # the first evaluation after installation takes seconds: it says why
    compiled = "alchemdriver.potential.backends.fast_mace.compiled.network"
    logging.getLogger(compiled).setLevel(logging.INFO)
    if not verbose:  # ours are log lines; what other packages warn of is nothing users can mend
        warnings.simplefilter("ignore")
    if lifeline is not None:
        from ..execute.lifeline import follow

        # a client hears from its server that all is over, and may have a request to answer
        follow(lifeline, 10.0 if ctx.invoked_subcommand == "client" else 0.0)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the run folder goes.")] = Path("demo-run"),
    seed: Annotated[int, typer.Option(help="Seed of the first replica.")] = 20404,
    model: Annotated[
        str,
        typer.Option(
            help="Name or file; all but the default take much longer.", autocompletion=model_names
        ),
    ] = "demo",
) -> None:
    """Switch cubic CsPbI3 into CsSnI3 and back: the whole chain in three minutes."""
    from .demo import run_demo

    run_demo(folder, seed, model)


@app.command("mass-leg")
def mass_leg(
    target: Annotated[Path, typer.Argument(help="A path-integral run, or its replicas.")],
    steps: Annotated[int, typer.Option(help="Length of each point.")],
    points: Annotated[int, typer.Option(help="Masses on the way.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Of the first point.")] = None,
) -> None:
    """Write the equilibrium runs that change the masses of a path-integral run."""
    from ..contract.layout import find_runs
    from ..contract.run_input import read_input
    from ..prepare.mass_leg import leg_folder, write_points

    first = read_input(find_runs(target)[0])
    home = target.parent if target.is_file() else target
    written = write_points(first, leg_folder(home), points, steps, seed)
    typer.echo(f"{len(written)} points in {leg_folder(home)}, {steps} steps each")
    typer.echo(f"start with: alchemdriver run {shlex.quote(str(leg_folder(home)))}")


@app.command()
def run(
    targets: Annotated[list[Path], typer.Argument(help="Inputs, run folders, replica folders.")],
    clients: Annotated[int, typer.Option(help="Local clients per replica; 0 to add none.")] = 1,
    jobs: Annotated[int | None, typer.Option(help="Replicas at a time.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads per client.")] = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    evaluator: Evaluator = "auto",
    start_from: Annotated[
        str | None, typer.Option("--from", help="Stage to run again, with all that follow.")
    ] = None,
    wall_time: Annotated[
        str | None,
        typer.Option(help="Stop by then, e.g. 23:50:00 or 2-12:00:00; exit status 75."),
    ] = None,
    error: Annotated[
        str | None,
        typer.Option(help="Go on, with more cycles, until the total has this error, e.g. 2meV."),
    ] = None,
    per: Annotated[
        str, typer.Option(help="Of what the error is: cell, atom, formula-unit or site.")
    ] = "cell",
    budget: Annotated[
        str | None,
        typer.Option(help="Of --error, e.g. 12h or 50000evaluations; exit status 75 when over."),
    ] = None,
) -> None:
    """Run server and clients to the end, resuming what is there, then analyse."""
    from ..execute.supervisor import Resources
    from .show import run_and_analyze

    stop_at = None if wall_time is None else time.monotonic() + parse_wall_time(wall_time)
    options = Resources(clients, jobs, device, dtype, threads, evaluator, stop_at)
    if error is not None:
        from .target import run_to_error

        if not run_to_error(targets, error, per, budget, options, start_from):
            raise typer.Exit(TRY_AGAIN)
        return
    if budget is not None or per != "cell":
        raise InputError("--budget and --per belong to --error, which is not given")
    if not run_and_analyze(targets, options, start_from):
        raise typer.Exit(TRY_AGAIN)


@app.command()
def tune(
    target: Annotated[Path, typer.Argument(help="A pilot, or its replicas, with complete pairs.")],
    out: Annotated[Path, typer.Argument(help="Where the tuned inputs go.")],
    keep: Annotated[
        str, typer.Option(help="What stays as it is: schedule, switch, equilibrate.")
    ] = "",
) -> None:
    """From a pilot's friction to the schedule and lengths that cost least; writes a new run."""
    from ..workflow.tune import REPORT
    from ..workflow.tune import tune as tuned

    typer.echo("\n".join(tuned(target, out, tuple(parse_list(keep))).lines()))
    typer.echo(f"written: {out / REPORT}; start with: alchemdriver run {shlex.quote(str(out))}")


@app.command()
def server(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.xml")],
    restart: Annotated[Path | None, typer.Option(help="Checkpoint to continue from.")] = None,
    socket_prefix: Prefix = None,
) -> None:
    """i-PI with the λ clock; clients connect by themselves."""
    from ..server.serve import serve

    serve(input_file, restart=restart, sockets_prefix=socket_prefix)


@app.command("relax-stage", hidden=True)
def relax_stage(folder: Path, device: Device = "cpu") -> None:
    """The relaxation of one stage, for `run`."""
    from ..workflow.relax import relax

    relax(folder, device)


@app.command()
def client(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.xml")],
    address: Annotated[str | None, typer.Option(help="Host of a TCP server.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of a TCP server.")] = None,
    unix: Annotated[str | None, typer.Option(help="Name of a unix socket.")] = None,
    socket_prefix: Prefix = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    patience: Annotated[float, typer.Option(help="Seconds to wait for a server.")] = 60.0,
    evaluator: Evaluator = "auto",
    secret: Annotated[
        Path | None,
        typer.Option(help="File with the secret of a TCP server; default: beside the input."),
    ] = None,
) -> None:
    """Compute energies, forces and ∂H/∂λ for a server, here or far away."""
    # torch's idle OpenMP threads would spin for a millisecond on the cores that the evaluator's own
    # threads are to use; the OpenMP library reads this when torch is imported
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    from ..client import assembly
    from ..client.serve import serve
    from ..contract.address import address_of
    from ..contract.digest import digest
    from ..contract.run_input import read_input
    from ..contract.secret import find_secret

    # what it waits for is all that a client has to say, and it may take minutes
    logging.getLogger("alchemdriver.client").setLevel(logging.INFO)
    if not patience >= 0:
        raise InputError(f"patience: expected 0 or more seconds, got {patience:g}")
    run = read_input(input_file)
    where = address_of(run, host=address, port=port, unix=unix, prefix=socket_prefix)
    lambda_of = assembly.lambda_reader(run, digest(run))
    typer.echo(f"loading the model {run.parameters.model}", err=True)
    hamiltonian = assembly.hamiltonian_of(run, device, dtype, evaluator)
    served = serve(
        where,
        n_atoms=len(run.structure),
        evaluate=hamiltonian.evaluate,
        evaluate_batch=hamiltonian.evaluate_batch,
        lambda_of=lambda_of,
        secret_of=lambda: find_secret(run.folder, secret),
        patience=patience,
    )
    typer.echo(f"served {served.requests} requests ({served.reason})")


@app.command()
def analyze(
    folders: Annotated[list[Path], typer.Argument(help="Run folders; replicas are pooled.")],
    out: Annotated[Path | None, typer.Option(help="Where result.json and plots go.")] = None,
    formula_units: Annotated[
        int | None,
        typer.Option(min=1, help="Formula units in the cell; default: from the elements."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Analyse the complete pairs of unfinished runs.")
    ] = False,
    n_ws: Annotated[
        int | None,
        typer.Option(min=1, help="N_WS of eq. 19 for einstein->model; default: by spglib."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="model->scaled: absolute free energy at T0, eV per cell or result.json."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="model->scaled: result.json of an independent value on the path."),
    ] = None,
    also_with: Annotated[
        str | None,
        typer.Option(
            help="Another model: how far the free energy depends on the model, from stored frames "
            "of both ends; NAME@HEAD for one of several heads."
        ),
    ] = None,
    device: Device = "cpu",
) -> None:
    """From output files to ΔG with its error: result.json, plots, and a table."""
    from .show import analyze_and_print

    analyze_and_print(
        folders,
        out,
        formula_units,
        partial,
        n_ws,
        reference=reference,
        check=check,
        also_with=also_with,
        device=device,
    )


@app.command()
def gather(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Folders of stages, finished or not, switches or windows, or of a campaign; "
            "NAME=FOLDER names the phase."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where tables and plots go.")] = Path("gathered"),
) -> None:
    """Many free energies in one table, and against temperature, size and switching time."""
    from .show import gather_and_print

    gather_and_print(folders, out)


@app.command()
def phases(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="NAME=FOLDER of every phase: stages, or reversible scaling with its reference; "
            "several folders may have one name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where tables and the plot go.")] = Path("phases"),
) -> None:
    """Where phases cross: transition temperatures with errors, from G(T) of each."""
    from .show import compare_phases

    compare_phases(folders, out)


@app.command()
def quantum(
    folders: Annotated[list[Path], typer.Argument(help="Runs at different numbers of beads.")],
    classical: Annotated[Path | None, typer.Option(help="The same with one bead.")] = None,
    out: Annotated[Path, typer.Option(help="Where quantum.json and the plot go.")] = Path("."),
) -> None:
    """Convergence with the number of beads, and the quantum correction."""
    from .show import compare_beads

    compare_beads(folders, classical, out)


@app.command()
def models() -> None:
    """List the models that can be named, with licence, source and purpose."""
    from .show import print_models

    print_models()


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="In seconds: the table of demo with 40 atoms.")
    ] = False,
    parts: Annotated[
        str | None,
        typer.Option(
            help="table: ratios of evaluations; size, memory, whole step, drift, profile, threads; "
            "default: all but threads."
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="small, L=1, MPA-0-like (random weights), or names of models; default: these and "
            "demo."
        ),
    ] = None,
    systems: Annotated[
        str | None,
        typer.Option(
            help="Of table and profile, such as perovskite-135, metal-108, alloy-32, vacancy-250."
        ),
    ] = None,
    dtypes: Annotated[
        str | None, typer.Option(help="float32, float64 or, by default, both.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=2, help="Evaluations of each variant; default: 5.")
    ] = None,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="JSON to write, or to add parts to.")] = None,
) -> None:
    """Our evaluation against stock, expanded and linear ones, and other packages, side by side."""
    from ..bench import FULL, QUICK, run_bench

    plan = QUICK if quick else FULL
    given = {"parts": parts, "models": models, "systems": systems, "dtypes": dtypes}
    chosen = {name: parse_list(text) for name, text in given.items() if text is not None}
    plan = replace(plan, **chosen, rounds=plan.rounds if rounds is None else rounds)
    run_bench(plan, device, out)


@app.command()
def doctor(device: Device = "cpu") -> None:
    """Whether a device computes the right numbers, and how fast: one page, in minutes."""
    from ..bench.doctor import examine

    for line in examine(device):
        typer.echo(line)


app.add_typer(
    typer.Typer(cls=Protocols, callback=lambda: None, rich_markup_mode=None),
    name="prepare",
    help="Write a run folder, or the stages of a free energy, for your structure.",
    no_args_is_help=True,
    subcommand_metavar="PROTOCOL STRUCTURE FOLDER ...",
    epilog="What one of them takes: alchemdriver prepare PROTOCOL --help",
)
app.command()(adopt)
app.add_typer(campaign.app, name="campaign", help="Many runs from one plan, here or on a cluster.")
composition.register(app)


def main() -> None:
    """One line for every deliberate error, no traceback."""
    interrupted = False

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without λ is no reason to fail
    try:
        # typer turns Ctrl-C and its own Exit into a return value
        status = app(standalone_mode=False) or 0
    except AlchemdriverError as err:
        status = _complain(f"error: {' '.join(str(err).split())}")
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        status = 1
    except OSError as err:
        if err.strerror is None:  # not the operating system's
            raise
        where = "" if err.filename is None else f": {err.filename}"
        status = _complain(f"error: {err.strerror}{where}")
    except RuntimeError as err:
        if not str(err).startswith("Symlink loop"):  # pathlib's ELOOP
            raise
        status = _complain(f"error: {err}: a link that leads to itself")
    except Exception as err:
        if interrupted:  # some packages make something else of a Ctrl-C while they are imported
            sys.exit(128 + signal.SIGINT)
        # click's usage errors (unknown option, missing argument) without importing click
        if not hasattr(err, "format_message"):
            raise
        message = str(err.format_message())
        # without arguments the message is the help
        status = _complain(message if message.startswith("Usage:") else f"error: {message}")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more, and Python would say so when it flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            status = status or 1
    sys.exit(status)


def _complain(line: str) -> int:
    """Print *line* as an error, if anybody listens; returns the exit status."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    return 2
