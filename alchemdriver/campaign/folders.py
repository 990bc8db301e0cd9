"""From a row to a run folder, by the same code as ``alchemdriver prepare``."""

from __future__ import annotations

import contextlib
import filecmp
import os
from pathlib import Path
from typing import Any

from ..contract.files import sha256_of
from ..contract.layout import find_runs
from ..contract.manifest import is_workflow
from ..errors import InputError
from ..prepare.command import ingredients
from ..prepare.run_folder import prepare
from ..workflow.command import prepare_stages
from .record import RUNS, Campaign, Case, Run

__all__ = ["FILES", "ensure_folder", "given_of", "write_run"]

FILES = "files"  # of the campaign: copies of the models and tables that the plan names


def ensure_folder(root: Path, campaign: Campaign, run: Run) -> Path:
    """The folder of *run*, written if it is not there yet: all of it or none."""
    folder = root / RUNS / run.name
    if not is_workflow(folder) and not (folder / "input.xml").is_file():
        write_run(root, campaign, run, folder)
    if not is_workflow(folder):
        find_runs(folder)  # says what to do about a half-written one
    return folder


def write_run(root: Path, campaign: Campaign, run: Run, folder: Path) -> None:
    """Write *run* into *folder*.  Raises InputError as ``prepare`` does."""
    case, kind = run.case, campaign.kind
    given = {**given_of(root, campaign, case), "seed": run.seed}
    system = campaign.systems[case.system]
    structure = root / system.file
    with open(structure, "rb") as f:
        if sha256_of(f) != system.sha256:
            raise InputError(f"{structure} is not the file that was planned with: restore it")
    if kind.in_stages:
        prepare_stages(kind, structure, folder, given)
        return
    atoms, parameters, settings = ingredients(structure, given)
    if run.lam is not None:
        parameters["lambda"] = repr(run.lam)
    prepare(kind.name, atoms, folder, parameters, settings)
    _share(root / FILES, folder)


def _share(kept: Path, folder: Path) -> None:
    """One copy of each model for all runs of a campaign, where the file system can: hard links."""
    for file in kept.iterdir() if kept.is_dir() else ():
        copy = folder / file.name
        if copy.is_file() and filecmp.cmp(file, copy, shallow=False):
            link = folder / f".{file.name}.link"
            with contextlib.suppress(OSError):
                os.link(file, link)
                link.replace(copy)


def given_of(root: Path, campaign: Campaign, case: Case) -> dict[str, Any]:
    """The options of *case* as the command line would have them."""
    given: dict[str, Any] = {"supercell": "1x1x1"}
    for option in campaign.kind.options:
        if option.name not in case.options:
            continue
        value = case.options[option.name]
        kept = (root / str(value)) if str(value).startswith(f"{FILES}/") else None
        given[option.name] = option.kind(value if kept is None else kept)
    return given
