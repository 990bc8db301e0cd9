"""``alchemdriver prepare crystal | vacancy | transmute``: from options to a plan."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract.manifest import Workflow
from ..contract.settings import Common
from ..contract.text import parse_numbers, parse_potentials, parse_sites, parse_supercell
from ..errors import InputError
from ..prepare.protocols import Protocol
from ..prepare.structure import whole_crystal
from ..records import Structure
from . import plan


def prepare_stages(
    protocol: Protocol, structure: Path, folder: Path, given: Mapping[str, Any]
) -> list[str]:
    """Write the workflow that *given* (values of the protocol's options by name) ask for.

    Returns what to tell the user.
    """
    if "second_phase" not in given and given.get("second_supercell", "1x1x1") != "1x1x1":
        raise InputError("--second-supercell is for --second-phase, which is not given")
    names = {"steps": "md_steps"} | {
        k: k
        for k in (
            "equilibrate", "switch", "cycles", "replicas", "schedule", "seed", "dtype", "n_ws",
            "formula_units", "route", "beads",
        )
    }  # fmt: skip
    structures = {structure.stem: _crystal(structure, given)}
    if "second_phase" in given:
        second = given["second_phase"]
        if second.stem in structures:
            raise InputError(f"both phases are called {second.stem}: rename a file")
        structures[second.stem] = _crystal(second, given, "second_")
    atoms = structures[structure.stem]
    heads = {given.get("head", s.head) for s in structures.values()}
    if len(heads) > 1:
        raise InputError("the phases name different heads: choose one with --head")
    common = Common(
        model=given["model"],
        temperatures_K=parse_numbers(given["temperature"], "temperature"),
        pressure_bar=given["pressure"],
        timestep_fs=given["timestep"],
        head=heads.pop(),
        **{new: given[old] for old, new in names.items() if old in given},
    )
    if protocol.name == "crystal":
        workflow = plan.prepare_crystal(atoms, folder, common)
    elif protocol.name == "vacancy":
        workflow = plan.prepare_vacancy(
            atoms,
            parse_sites(given["site"]),
            folder,
            common,
            parse_potentials(given.get("chemical_potential", "")),
            given.get("tether"),
        )
    else:
        workflow = plan.prepare_transmute(structures, given["alchemy"], folder, common)
    remarks = [remark for s in structures.values() for remark in s.remarks]
    return remarks + describe(workflow)


def _crystal(path: Path, given: Mapping[str, Any], prefix: str = "") -> Structure:
    supercell = parse_supercell(given[prefix + "supercell"])
    return whole_crystal(path, supercell, given.get(prefix + "index"), given.keys())


def describe(workflow: Workflow) -> list[str]:
    """What was written, what it assumes, how long it is."""
    s = workflow.settings
    lines = []
    for label, c in s.crystals.items():
        origin = "given" if s.n_ws else "by spglib"
        lines.append(
            f"{label}: {c.atoms} atoms, {c.formula_units} formula units, space group "
            f"{c.space_group}, N_WS = {c.n_ws} ({origin})"
        )
    steps = 2 * s.cycles * (s.equilibrate + s.switch)
    if s.beads > 1:
        lines.append(f"path integrals with {s.beads} beads; spring constants classically")
    total = 0
    for k, stage in enumerate(workflow.stages):
        what = (
            f"{stage.replicas} replicas x {steps} steps"
            if stage.does == "free energy"
            else ("ASE" if stage.does == "relax" else f"{s.md_steps} steps")
        )
        total += {"relax": 0, "free energy": stage.replicas * steps}.get(stage.does, s.md_steps)
        lines.append(f"{k + 1:3d}  {stage.name:34s} {stage.does:15s} {what}")
    lines.append(
        f"{total} steps of {s.timestep_fs:g} fs in all, {s.pressure_bar:g} bar, "
        f"seeds from {s.seed}; every input can be edited before it is run"
    )
    lines.append(f"start with: alchemdriver run {shlex.quote(str(workflow.root))}")
    return lines
