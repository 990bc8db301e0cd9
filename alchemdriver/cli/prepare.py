"""``alchemdriver prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..contract.text import parse_numbers, parse_supercell
from ..errors import InputError


def prepare(
    protocol: Annotated[
        str,
        typer.Argument(
            help="A calculation in stages: crystal, vacancy, transmute. Or one run: nvt, npt, "
            "npt-flexible, nvt-fixed, switch-nvt, switch-npt, switch-npt-flexible, pimd-fixed, "
            "pimd-fixed-npt, switch-pimd, switch-pimd-npt, scaling-nvt, scaling-npt; or several: "
            "windows-nvt, windows-npt"
        ),
    ],
    structure: Annotated[Path, typer.Argument(help="Anything ASE reads.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    model: Annotated[str, typer.Option(help="Name or file; see 'alchemdriver models'.")],
    temperature: Annotated[str, typer.Option(help="K; stages take several, e.g. '100 300'")],
    alchemy: Annotated[str | None, typer.Option(help="e.g. 'Pb->Sn' or 'Fe[12]->void'")] = None,
    pressure: Annotated[
        float | None, typer.Option(help="bar; mandatory for npt and stages.")
    ] = None,
    supercell: Annotated[str, typer.Option(help="e.g. 2x2x2")] = "1x1x1",
    timestep: Annotated[float | None, typer.Option(help="fs; mandatory for stages.")] = None,
    equilibrate: Annotated[int | None, typer.Option(help="Steps of each hold.")] = None,
    switch: Annotated[int | None, typer.Option(help="Steps of each switch.")] = None,
    cycles: Annotated[int | None, typer.Option(help="Forward/backward pairs.")] = None,
    schedule: Annotated[str | None, typer.Option(help="poly9, linear or a table file.")] = None,
    lam: Annotated[float | None, typer.Option("--lambda", help="Mandatory for fixed λ.")] = None,
    windows: Annotated[
        int | None, typer.Option(help="Gauss–Legendre windows, for windows-nvt and windows-npt.")
    ] = None,
    lambdas: Annotated[str | None, typer.Option(help="Windows by hand, e.g. '0 0.5 1'.")] = None,
    scale: Annotated[float | None, typer.Option(help="T0/T, for scaling-nvt and -npt.")] = None,
    steps: Annotated[int | None, typer.Option(help="Length at fixed λ, and of averages.")] = None,
    beads: Annotated[int | None, typer.Option(help="Path-integral beads.")] = None,
    tether: Annotated[float | None, typer.Option(help="eV/Å^2, for atoms to void.")] = None,
    springs: Annotated[Path | None, typer.Option(help="extxyz of the Einstein crystal.")] = None,
    masses: Annotated[str | None, typer.Option(help="interpolate or fixed")] = None,
    masses_file: Annotated[Path | None, typer.Option(help="JSON of isotopic masses.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="alchemical or linear")] = None,
    dtype: Annotated[str | None, typer.Option(help="float64 or float32")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first run.")] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Independent runs, seeds counted up; stages: 4.")
    ] = None,
    route: Annotated[
        str | None, typer.Option(help="Stages: both, alchemical or frenkel-ladd")
    ] = None,
    site: Annotated[str | None, typer.Option(help="vacancy: atoms, e.g. 0 or '0;5'")] = None,
    chemical_potential: Annotated[
        str | None, typer.Option(help="vacancy in a compound: eV per atom, e.g. 'I=-1.5'")
    ] = None,
    second_phase: Annotated[
        Path | None, typer.Option(help="transmute: the other phase, for ΔΔG.")
    ] = None,
    second_supercell: Annotated[str, typer.Option(help="Of the other phase.")] = "1x1x1",
    n_ws: Annotated[
        int | None, typer.Option(min=1, help="N_WS of eq. 19, stages; default: by spglib.")
    ] = None,
    formula_units: Annotated[
        int | None, typer.Option(min=1, help="Stages; default: from the elements.")
    ] = None,
) -> None:
    """Write a run folder, or the stages of a free energy, for your structure."""
    given = {k: v for k, v in locals().items() if v is not None}
    from ..prepare import run_folder as p
    from ..prepare import windows as w
    from ..prepare.render import Settings
    from ..prepare.structure import read_structure
    from ..workflow.command import prepare_stages, stages_only

    if protocol in p.STAGED:
        prepare_stages(given)
        return
    p.template_path(protocol)
    stages_only(given)
    from ..contract.run_input import read_input

    if alchemy is None and protocol not in (*p.PLAIN, *p.SCALING):
        raise InputError(f"protocol '{protocol}' needs an alchemy, e.g. --alchemy 'Pb->Sn'")
    parameters = {
        "lambda" if k == "lam" else k: str(v) for k, v in given.items() if k == "lam" or k in p.KEYS
    }
    (kelvin,) = parse_numbers(temperature, "temperature", 1)
    settings = Settings(kelvin, pressure, timestep, steps, beads, seed)
    atoms = read_structure(structure, parse_supercell(supercell))
    replicas = 1 if replicas is None else replicas
    if protocol in w.PROTOCOLS:
        at = w.nodes(windows, lambdas)
        folders = w.prepare_windows(protocol, atoms, folder, parameters, at, settings, replicas)
    elif windows is not None or lambdas is not None:
        raise InputError(f"--windows and --lambdas belong to {' and '.join(w.PROTOCOLS)}")
    else:
        folders = p.prepare(protocol, atoms, folder, parameters, settings, replicas)
    typer.echo(f"{len(atoms)} atoms, {len(folders)} run(s) in {folder}")
    typer.echo(describe_run(read_input(folders[0])))
    typer.echo(f"start with: alchemdriver run {folder}")


def describe_run(run) -> str:
    """One line that says what a prepared input will do, its template's own choices included."""
    parts = [run.ensemble, f"{run.temperature:g} K"]
    if run.parameters.scale is not None:
        parts[1] += f", scaled to {run.temperature / run.parameters.scale:g} K"
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
