"""The ``alchemdriver`` command.  Every error a user can meet is one line and exit status 2."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .errors import AlchemdriverError, InputError

app = typer.Typer(
    name="alchemdriver",
    help="Alchemical free energies with MACE potentials, driven by i-PI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Dtype = Annotated[str | None, typer.Option(help="float64 or float32; default: the input's")]
Prefix = Annotated[str | None, typer.Option(help="Prefix of unix socket names.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alchemdriver {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the run folder goes.")] = Path("demo-run"),
    seed: Annotated[int, typer.Option(help="Seed of the first replica.")] = 20404,
) -> None:
    """Switch cubic CsPbI3 into CsSnI3 and back: the whole chain in three minutes."""
    from .demo import run_demo

    run_demo(folder, seed)


@app.command()
def prepare(
    protocol: Annotated[
        str,
        typer.Argument(help="nvt-fixed, switch-nvt, switch-npt, switch-npt-flexible or pimd-fixed"),
    ],
    structure: Annotated[Path, typer.Argument(help="Anything ASE reads.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    alchemy: Annotated[str, typer.Option(help="e.g. 'Pb->Sn' or 'Fe[12]->void'")],
    model: Annotated[str, typer.Option(help="Name or file; see 'alchemdriver models'.")],
    temperature: Annotated[float, typer.Option(help="K")],
    pressure: Annotated[float | None, typer.Option(help="bar; mandatory for npt.")] = None,
    supercell: Annotated[str, typer.Option(help="e.g. 2x2x2")] = "1x1x1",
    timestep: Annotated[float | None, typer.Option(help="fs")] = None,
    equilibrate: Annotated[int | None, typer.Option(help="Steps of each hold.")] = None,
    switch: Annotated[int | None, typer.Option(help="Steps of each switch.")] = None,
    cycles: Annotated[int | None, typer.Option(help="Forward/backward pairs.")] = None,
    schedule: Annotated[str | None, typer.Option(help="poly9, linear or a table file.")] = None,
    lam: Annotated[float | None, typer.Option("--lambda", help="Mandatory for fixed λ.")] = None,
    steps: Annotated[int | None, typer.Option(help="Length at fixed λ.")] = None,
    beads: Annotated[int | None, typer.Option(help="Path-integral beads.")] = None,
    tether: Annotated[float | None, typer.Option(help="eV/Å^2, for atoms to void.")] = None,
    springs: Annotated[Path | None, typer.Option(help="extxyz of the Einstein crystal.")] = None,
    masses: Annotated[str | None, typer.Option(help="interpolate or fixed")] = None,
    masses_file: Annotated[Path | None, typer.Option(help="JSON of isotopic masses.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="alchemical or linear")] = None,
    dtype: Annotated[str | None, typer.Option(help="float64 or float32")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first replica.")] = None,
    replicas: Annotated[int, typer.Option(help="Independent runs, seeds counted up.")] = 1,
) -> None:
    """Write a run folder for your structure from one of the protocols."""
    from . import prepare as p
    from .inputs import read_input

    given = {
        "model": model,
        "alchemy": alchemy,
        "schedule": schedule,
        "equilibrate": equilibrate,
        "switch": switch,
        "cycles": cycles,
        "lambda": lam,
        "tether": tether,
        "springs": springs,
        "masses": masses,
        "masses_file": masses_file,
        "interpolation": interpolation,
        "dtype": dtype,
    }
    parameters = {k: str(v) for k, v in given.items() if v is not None}
    settings = p.Settings(temperature, pressure, timestep, steps, beads, seed)
    atoms = p.read_structure(structure, parse_supercell(supercell))
    folders = p.prepare(protocol, atoms, folder, parameters, settings, replicas)
    typer.echo(f"{len(atoms)} atoms, {len(folders)} run(s) in {folder}")
    typer.echo(describe_run(read_input(folders[0])))
    typer.echo(f"start with: alchemdriver run {folder}")


def describe_run(run) -> str:
    """One line that says what a prepared input will do, its template's own choices included."""
    parts = [run.ensemble, f"{run.temperature:g} K"]
    if run.pressure is not None:
        parts.append(f"{run.pressure:g} bar")
    parts += [f"{run.timestep:g} fs", f"{run.beads} bead(s)"]
    q = run.parameters
    if run.schedule is None:
        parts.append(f"lambda {q.lam:g}, {run.total_steps} steps")
    else:
        parts.append(f"{q.cycles} x 2 x ({q.equilibrate} held + {q.switch} switched, {q.schedule})")
    parts.append("masses " + ("interpolated" if run.interpolates_masses else "fixed"))
    return ", ".join(parts)


def parse_supercell(text: str) -> tuple[int, int, int]:
    """``2x2x2`` as three numbers.  Raises InputError."""
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text.lower())
    if not match:
        raise InputError(f"supercell: expected three positive numbers such as 2x2x2, got '{text}'")
    return tuple(int(n) for n in match.groups())


@app.command()
def run(
    targets: Annotated[list[Path], typer.Argument(help="Inputs, run folders, replica folders.")],
    clients: Annotated[int, typer.Option(help="Local clients per replica; 0 to add none.")] = 1,
    jobs: Annotated[int | None, typer.Option(help="Replicas at a time.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads per client.")] = None,
    device: Device = "cpu",
    dtype: Dtype = None,
) -> None:
    """Run server and clients to the end, resuming what is there, then analyse."""
    from .run import Options
    from .session import run_and_analyze

    run_and_analyze(targets, Options(clients, jobs, device, dtype, threads))


@app.command()
def server(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.xml")],
    restart: Annotated[Path | None, typer.Option(help="Checkpoint to continue from.")] = None,
    socket_prefix: Prefix = None,
) -> None:
    """i-PI with the λ clock; clients connect by themselves."""
    from .server import serve

    serve(input_file, restart=restart, sockets_prefix=socket_prefix)


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
) -> None:
    """Compute energies, forces and ∂H/∂λ for a server, here or far away."""
    from . import assembly
    from .client import serve
    from .inputs import read_input

    if not patience >= 0:
        raise InputError(f"patience: expected 0 or more seconds, got {patience:g}")
    run = read_input(input_file)
    where = assembly.address_of(run, host=address, port=port, unix=unix, prefix=socket_prefix)
    lambda_of = assembly.lambda_reader(run, assembly.digest(run))
    hamiltonian = assembly.hamiltonian_of(run, device, dtype)
    served = serve(
        where,
        n_atoms=len(run.structure),
        evaluate=hamiltonian.evaluate,
        lambda_of=lambda_of,
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
) -> None:
    """From output files to ΔG with its error: result.json, plots, and a table."""
    from .session import analyze_and_print

    analyze_and_print(folders, out, formula_units, partial, n_ws)


@app.command()
def models() -> None:
    """List the models that can be named, with licence, source and purpose."""
    from .session import print_models

    print_models()


@app.command()
def bench(
    repeats: Annotated[int, typer.Option(min=1, help="Evaluations per measurement.")] = 20,
    device: Device = "cpu",
) -> None:
    """Alchemical against stock evaluation, side by side, on the embedded model."""
    from .bench import run_bench

    run_bench(repeats, device)


def main() -> None:
    """Entry point: one line for every deliberate error, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal without λ is no reason to fail
    try:
        # typer turns Ctrl-C and its own Exit into a return value
        status = app(standalone_mode=False) or 0
    except AlchemdriverError as err:
        print(f"error: {' '.join(str(err).split())}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as err:
        if err.strerror is None:  # not the operating system's
            raise
        where = "" if err.filename is None else f": {err.filename}"
        print(f"error: {err.strerror}{where}", file=sys.stderr)
        status = 2
    except Exception as err:
        # click's usage errors (unknown option, missing argument) without importing click
        if not hasattr(err, "format_message"):
            raise
        print(f"error: {err.format_message()}", file=sys.stderr)
        status = 2
    sys.stdout.flush()
    sys.exit(status)
