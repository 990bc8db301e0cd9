"""The verbs of composition: relax, optimize, supercells, order, schemes.

Nothing heavy is imported above.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..prepare.options import model_names

Structure = Annotated[Path, typer.Argument(help="A crystal; anything ASE reads.")]
Alchemy = Annotated[
    list[str],
    typer.Option(help="A mixed sublattice, e.g. 'Ce->Zr' or 'Na->Li->K'; repeat for several."),
]
OwnAlchemy = Annotated[
    list[str] | None,
    typer.Option(
        help="A mixed sublattice, e.g. 'Ce->Zr' or 'Na->Li->K'; repeat for several; default: the "
        "partly occupied sites of the file."
    ),
]
Index = Annotated[int | None, typer.Option(help="Frame of a file with several; -1: the last.")]
Model = Annotated[
    str,
    typer.Option(help="Name or file; see 'alchemdriver models'.", autocompletion=model_names),
]
Out = Annotated[Path, typer.Option(help="Folder of results; a second call resumes.")]
Supercell = Annotated[str, typer.Option(help="e.g. 2x2x2")]
Cell = Annotated[str, typer.Option(help="free, fixed or c-only (a and b held)")]
Symmetry = Annotated[bool, typer.Option(help="Keep the space group of the structure.")]
Force = Annotated[float, typer.Option(help="Largest force that may be left, eV/Å.")]
Stress = Annotated[float, typer.Option(help="Largest stress that may be left, eV/Å³.")]
Steps = Annotated[int, typer.Option(help="At most so many steps per relaxation.")]
Optimiser = Annotated[str, typer.Option(help="fire (as the paper) or bfgs (soft crystals)")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Dtype = Annotated[str, typer.Option(help="float64 or float32")]
Head = Annotated[str | None, typer.Option(help="Of a multi-head MACE model.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (relax, optimize, supercells, order, schemes):
        app.command()(verb)


def relax(
    structure: Structure,
    model: Model,
    out: Out,
    alchemy: OwnAlchemy = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="One per sublattice, e.g. 0.7,0.3; default: the file's own shares."),
    ] = None,
    scan: Annotated[
        int | None, typer.Option(min=2, help="So many compositions of two states, ends included.")
    ] = None,
    supercell: Supercell = "1x1x1",
    index: Index = None,
    random: Annotated[
        int, typer.Option(min=0, help="Also relax so many randomly substituted cells.")
    ] = 0,
    sqs: Annotated[bool, typer.Option("--sqs", help="Also relax a quasirandom cell.")] = False,
    seed: Annotated[int, typer.Option(help="Of random and quasirandom cells.")] = 1,
    cell: Cell = "free",
    symmetry: Symmetry = True,
    force: Force = 1e-3,
    stress: Stress = 1e-5,
    steps: Steps = 2000,
    optimiser: Optimiser = "fire",
    device: Device = "cpu",
    dtype: Dtype = "float64",
    head: Head = None,
) -> None:
    """Relax a mixed crystal at fixed weights, or along a scan; table and plot of its cell."""
    from . import show
    from .relaxation import Settings

    settings = Settings(cell, symmetry, force, stress, steps, optimiser)
    mixture, own = show.read_mixture(structure, alchemy, supercell, index, head)
    grid = show.compositions(mixture, weights, scan, own)
    backend, digest = show.open_backend(model, device, dtype, head)
    show.relax_and_print(
        mixture, grid, backend, digest, settings, out, samples=random, with_sqs=sqs, seed=seed
    )


def optimize(
    structure: Structure,
    model: Model,
    out: Out,
    target: Annotated[
        str,
        typer.Option(
            help="a=3.19, b=…, c=… (Å, of the relaxed cell); biaxial (σ_xx + σ_yy = 0 at the "
            "given a and b, c relaxed); hydrostatic (tr σ = 0 at the given cell)"
        ),
    ],
    alchemy: OwnAlchemy = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Start, one per sublattice; default: the file's or equal shares."),
    ] = None,
    index: Index = None,
    method: Annotated[str, typer.Option(help="projected or exponentiated (eq. 16)")] = "projected",
    tolerance: Annotated[
        float | None, typer.Option(help="Å or eV/Å³; default 1e-4 Å, 1e-5 eV/Å³")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Evaluations of the target.")] = 200,
    symmetry: Symmetry = True,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    head: Head = None,
) -> None:
    """Find the composition that meets a target; exit status 1 if none does."""
    from . import show

    mixture, own = show.read_mixture(structure, alchemy, "1x1x1", index, head)
    if mixture.has_vacancies:
        raise InputError(
            f"structure {structure} has sites that may be empty, and nothing holds the atom of an "
            "empty one: relax the mixture, or optimize one without vacancies"
        )
    start = show.start_of(mixture, weights, own)
    backend, digest = show.open_backend(model, device, dtype, head)
    found = show.optimize_and_print(
        mixture, start, backend, digest, target, method, tolerance, max_steps, symmetry, out
    )
    if not found.met:
        raise typer.Exit(1)


def supercells(
    structure: Structure,
    out: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    alchemy: OwnAlchemy = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="One per sublattice, e.g. 0.7,0.3; default: the file's own shares."),
    ] = None,
    supercell: Supercell = "1x1x1",
    index: Index = None,
    method: Annotated[
        str, typer.Option(help="random, sqs (quasirandom) or orderings (all distinct ones)")
    ] = "random",
    samples: Annotated[int, typer.Option(min=1, help="How many; of orderings: all.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first cell.")] = 1,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Take the nearest composition that the cell can have.")
    ] = False,
) -> None:
    """Cells of whole atoms from mixed or partly occupied sites, for dynamics."""
    from . import show

    show.write_cells(
        structure, out, alchemy, weights, supercell, index, method, samples, seed, nearest
    )


def order(
    cases: Annotated[Path, typer.Argument(metavar="LIST.csv", help="Columns A,B1,B2,X,a,label.")],
    model: Model,
    out: Out,
    mixed: Annotated[
        str, typer.Option(help="n of the n×n×n alchemical cells, e.g. 1,2; the first is ranked.")
    ] = "1",
    sqs: Annotated[
        int | None, typer.Option(min=2, help="n of an n×n×n quasirandom cell to relax too.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of quasirandom cells.")] = 1,
    largest: Annotated[
        int | None,
        typer.Option(min=10, help="Leave out orderings with more atoms in their primitive cell."),
    ] = None,
    symmetry: Symmetry = True,
    force: Force = 5e-3,
    stress: Stress = 5e-5,
    steps: Steps = 2000,
    optimiser: Optimiser = "bfgs",
    device: Device = "cpu",
    dtype: Dtype = "float64",
    head: Head = None,
) -> None:
    """Ordered against disordered A2B'B''X6 for a list of compositions; ranking with ROC and AUC."""
    from . import show
    from .relaxation import Settings

    settings = Settings("free", symmetry, force, stress, steps, optimiser)
    backend, digest = show.open_backend(model, device, dtype, head)
    show.order_and_print(cases, backend, digest, settings, mixed, sqs, seed, largest, out)


def schemes(
    structure: Structure,
    alchemy: Alchemy,
    model: Model,
    out: Out,
    points: Annotated[int, typer.Option(min=3, help="Values of λ.")] = 21,
    cells: Annotated[
        str, typer.Option(help="Supercells n×n×n to time, e.g. 1,2,3; empty for none.")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Evaluations per timing.")] = 5,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    head: Head = None,
    index: Index = None,
) -> None:
    """Interpolation schemes side by side: energies along λ, linearity, time per step."""
    from . import show

    mixture, _ = show.read_mixture(structure, alchemy, "1x1x1", index, head)
    backend, _ = show.open_backend(model, device, dtype, head)
    show.schemes_and_print(mixture, alchemy, backend, points, cells, repeats, out)
