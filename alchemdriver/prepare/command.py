"""``alchemdriver prepare`` of single runs and windows: from options to a folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract.parameters import KEYS
from ..contract.run_input import RunInput, read_input
from ..contract.text import parse_numbers, parse_supercell
from ..records import Structure
from .protocols import Protocol
from .render import Settings
from .run_folder import prepare
from .structure import read_structure
from .windows import nodes, prepare_windows


def prepare_runs(
    protocol: Protocol, structure: Path, folder: Path, given: Mapping[str, Any]
) -> list[str]:
    """Write the runs that *given* (values of the protocol's options by name) ask for.

    Returns what to tell the user.
    """
    atoms, parameters, settings = ingredients(structure, given)
    replicas = given.get("replicas", 1)
    if protocol.at_several_lambdas:
        at = nodes(given.get("windows"), given.get("lambdas"))
        folders = prepare_windows(protocol.name, atoms, folder, parameters, at, settings, replicas)
    else:
        folders = prepare(protocol.name, atoms, folder, parameters, settings, replicas)
    return [
        f"{len(atoms)} atoms, {len(folders)} run(s) in {folder}",
        describe(read_input(folders[0])),
        *atoms.remarks,
        f"start with: alchemdriver run {shlex.quote(str(folder))}",
    ]


def ingredients(
    structure: Path, given: Mapping[str, Any]
) -> tuple[Structure, dict[str, str], Settings]:
    """What one run is made of: atoms, keys of ``<parameters>``, and what replaces the template's
    numbers.  Raises InputError."""
    parameters = {name: str(value) for name, value in given.items() if name in KEYS}
    (kelvin,) = parse_numbers(given["temperature"], "temperature", 1)
    settings = Settings(
        temperature=kelvin,
        pressure=given.get("pressure"),
        timestep=given.get("timestep"),
        total_steps=given.get("steps"),
        beads=given.get("beads"),
        seed=given.get("seed"),
    )
    atoms = read_structure(
        structure, parse_supercell(given["supercell"]), given.get("index"), parameters.keys()
    )
    return atoms, parameters, settings


def describe(run: RunInput) -> str:
    """One line that says what a prepared input will do, its template's own choices included."""
    parts = [run.ensemble]
    if run.temperature is not None:
        parts.append(f"{run.temperature:g} K")
    if run.parameters.scale is not None and run.temperature is not None:
        parts.append(f"scaled to {run.temperature / run.parameters.scale:g} K")
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
