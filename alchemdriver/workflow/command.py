"""``alchemdriver prepare crystal | vacancy | transmute``: from options to a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..contract.manifest import Workflow
from ..contract.text import parse_potentials, parse_sites
from ..errors import InputError

_ONLY_STAGES = (
    "route", "site", "chemical_potential", "second_phase", "n_ws", "formula_units",
)  # fmt: skip
_ONLY_RUNS = (
    "lam", "windows", "lambdas", "scale", "springs", "masses", "masses_file",
    "interpolation",
)  # fmt: skip


def stages_only(given: dict[str, Any]) -> None:
    """Raises InputError for an option that only calculations in stages have."""
    for name in _ONLY_STAGES:
        if name in given:
            raise InputError(f"--{name.replace('_', '-')} is for crystal, vacancy and transmute")


def prepare_stages(given: dict[str, Any]) -> None:
    """Write the workflow that *given* (the options of ``prepare``) ask for, and describe it."""
    from ..contract.text import parse_numbers, parse_supercell
    from ..prepare.structure import read_structure
    from . import plan

    kind, folder = given["protocol"], given["folder"]
    for name in _ONLY_RUNS:
        if name in given:
            raise InputError(
                f"--{name.replace('_', '-')} is for single runs: edit the inputs of the stages"
            )
    for name, needs in (
        ("site", "vacancy"),
        ("tether", "vacancy"),
        ("chemical_potential", "vacancy"),
        ("second_phase", "transmute"),
    ):
        if name in given and kind != needs:
            raise InputError(f"--{name.replace('_', '-')} is for {needs}")
    if "route" in given and kind == "crystal":
        raise InputError("--route is for vacancy and transmute: a crystal has one")
    if given["second_supercell"] != "1x1x1" and "second_phase" not in given:
        raise InputError("--second-supercell is for --second-phase, which is not given")
    if (kind == "transmute") != ("alchemy" in given):
        raise InputError(
            "transmute needs an alchemy, e.g. --alchemy 'Pb->Sn'"
            if kind == "transmute"
            else f"--alchemy is for transmute; {kind} writes its own"
        )
    for name in ("pressure", "timestep"):
        if name not in given:
            raise InputError(f"{kind} needs a {name}, e.g. --{name} 1")
    names = {"steps": "md_steps"} | {
        k: k
        for k in (
            "equilibrate", "switch", "cycles", "replicas", "schedule", "seed", "dtype", "n_ws",
            "formula_units", "route", "beads",
        )
    }  # fmt: skip
    common = plan.Common(
        model=given["model"],
        temperatures_K=parse_numbers(given["temperature"], "temperature"),
        pressure_bar=given["pressure"],
        timestep_fs=given["timestep"],
        **{new: given[old] for old, new in names.items() if old in given},
    )
    structure = read_structure(given["structure"], parse_supercell(given["supercell"]))
    if kind == "crystal":
        workflow = plan.prepare_crystal(structure, folder, common)
    elif kind == "vacancy":
        workflow = plan.prepare_vacancy(
            structure,
            parse_sites(given.get("site", "")),
            folder,
            common,
            parse_potentials(given.get("chemical_potential", "")),
            given.get("tether"),
        )
    else:
        phases = {Path(given["structure"]).stem: structure}
        if "second_phase" in given:
            second = Path(given["second_phase"])
            if second.stem in phases:
                raise InputError(f"both phases are called {second.stem}: rename a file")
            phases[second.stem] = read_structure(second, parse_supercell(given["second_supercell"]))
        workflow = plan.prepare_transmute(phases, given["alchemy"], folder, common)
    for line in describe(workflow):
        print(line)


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
    lines.append(f"start with: alchemdriver run {workflow.root}")
    return lines
