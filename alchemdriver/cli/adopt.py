"""``alchemdriver adopt``: a stock i-PI input as one of ours."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..contract.parameters import KEYS
from ..prepare.options import model_names


def _key(name: str) -> typer.models.OptionInfo:
    """An option that is a key of ``<parameters>``."""
    return typer.Option("--" + name.replace("_", "-"), help=KEYS[name].about)


def adopt(
    source: Annotated[Path, typer.Argument(metavar="INPUT.xml", help="An input of i-PI's.")],
    folder: Annotated[Path, typer.Argument(help="Run folder to write.")],
    model: Annotated[
        str,
        typer.Option(help="Name or file; see 'alchemdriver models'.", autocompletion=model_names),
    ],
    alchemy: Annotated[str | None, _key("alchemy")] = None,
    lam: Annotated[float | None, _key("lambda")] = None,
    equilibrate: Annotated[int | None, _key("equilibrate")] = None,
    switch: Annotated[int | None, _key("switch")] = None,
    cycles: Annotated[int | None, _key("cycles")] = None,
    schedule: Annotated[str | None, _key("schedule")] = None,
    masses: Annotated[str | None, _key("masses")] = None,
    interpolation: Annotated[str | None, _key("interpolation")] = None,
    tether: Annotated[float | None, _key("tether")] = None,
    springs: Annotated[Path | None, _key("springs")] = None,
    scale: Annotated[float | None, _key("scale")] = None,
    dtype: Annotated[str | None, _key("dtype")] = None,
    head: Annotated[str | None, _key("head")] = None,
    charge: Annotated[float | None, _key("charge")] = None,
    spin: Annotated[int | None, _key("spin")] = None,
    other: Annotated[str | None, _key("other")] = None,
    masses_file: Annotated[Path | None, _key("masses_file")] = None,
    structure: Annotated[
        Path | None, typer.Option(help="Where to start, instead of what the input names.")
    ] = None,
) -> None:
    """Turn a stock i-PI input into a run folder of ours, and list what was changed."""
    from ..prepare.adopt import adopt as write
    from ..prepare.command import describe

    given = {
        "model": model,
        "alchemy": alchemy,
        "lambda": lam,
        "equilibrate": equilibrate,
        "switch": switch,
        "cycles": cycles,
        "schedule": schedule,
        "masses": masses,
        "interpolation": interpolation,
        "tether": tether,
        "springs": springs,
        "scale": scale,
        "dtype": dtype,
        "head": head,
        "charge": charge,
        "spin": spin,
        "other": other,
        "masses_file": masses_file,
    }
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    adopted = write(source, folder, parameters, structure)
    for change in adopted.changes:
        typer.echo(f"- {change}")
    typer.echo(describe(adopted.run))
    typer.echo(f"start with: alchemdriver run {shlex.quote(str(folder))}")
