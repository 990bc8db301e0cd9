"""``workflow.json``: the stages of a calculation and which outputs feed which inputs.

The file is written once by ``prepare`` and meant to be read.  What has been done is not in it:
every finished stage holds a ``done.json`` with the sha256 of what it started from and of what it
gave.  So a stage edited by hand, or fed by an earlier one that was run again, is noticed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean
from .files import sha256, write_json

SCHEMA = "alchemdriver-workflow/1"
FILE = "workflow.json"
DONE = "done.json"

# What a stage does, and the files that it gives.
GIVES = {
    "relax": ("relaxed.xyz",),
    "mean structure": ("mean.xyz",),
    "springs": ("mean.xyz", "einstein.extxyz"),
    "free energy": ("result.json",),
}


@dataclass(frozen=True)
class Stage:
    """One folder.  ``takes`` maps what it needs to the file that gives it, relative to the root:

    ``start.xyz``        the structure to start from
    ``einstein.extxyz``  spring constants; the anchors are the start's positions
    ``tether``           the same file: k of the removed atoms becomes the parameter 'tether'
    """

    name: str  # folder, relative to the workflow's
    does: str  # a key of GIVES
    takes: dict[str, str]
    removed: tuple[int, ...] = ()  # atoms of the springs' crystal that are removed
    replicas: int = 1
    temperature: float | None = None  # K; None: relaxation

    def inputs(self, root: Path) -> list[Path]:
        """The hand-editable files: i-PI inputs, or ``relax.json``."""
        folder = root / self.name
        if self.does == "relax":
            return [folder / "relax.json"]
        if self.replicas == 1:
            return [folder / "input.xml"]
        return [folder / f"replica-{r + 1}" / "input.xml" for r in range(self.replicas)]

    def gives(self, root: Path) -> list[Path]:
        return [root / self.name / file for file in GIVES[self.does]]


@dataclass(frozen=True)
class Calculation:
    """One free energy that stages add up to; see :mod:`alchemdriver.analysis.workflow`."""

    quantity: str  # 'G', 'G_v', 'ΔG'
    route: str  # 'Frenkel–Ladd' or 'alchemical'
    temperature: float  # K
    stages: dict[str, str]  # role ('crystal', 'defect', 'initial', 'final', 'path') → stage name
    phase: str = ""  # label of the crystal, of transmutations
    state: str = ""  # 'initial' or 'final', of the end states of transmutations


@dataclass(frozen=True)
class Workflow:
    """A folder with its manifest."""

    root: Path
    kind: str  # 'crystal', 'vacancy' or 'transmute'
    settings: dict[str, Any]  # as given; units in the names
    stages: tuple[Stage, ...]
    calculations: tuple[Calculation, ...] = field(default=())

    def stage(self, name: str) -> Stage:
        """Raises InputError with a suggestion for an unknown name."""
        for stage in self.stages:
            if stage.name == name.strip("/"):
                return stage
        names = [s.name for s in self.stages]
        raise InputError(
            f"{self.root}: no stage '{name}'{did_you_mean(name, names)}; it has {', '.join(names)}"
        )

    def sources(self, stage: Stage) -> list[Stage]:
        """The stages that feed *stage*."""
        feeding = {str(Path(source).parent) for source in stage.takes.values()}
        return [s for s in self.stages if s.name in feeding]

    def after(self, stage: Stage) -> list[Stage]:
        """*stage* and all that depend on it, in order."""
        chosen = [stage]
        for other in self.stages:
            if other not in chosen and any(s in chosen for s in self.sources(other)):
                chosen.append(other)
        return chosen


def write(workflow: Workflow) -> None:
    """Write ``workflow.json`` into the root."""
    document = {
        "schema": SCHEMA,
        "kind": workflow.kind,
        "settings": workflow.settings,
        "stages": [asdict(s) for s in workflow.stages],
        "calculations": [asdict(c) for c in workflow.calculations],
    }
    write_json(workflow.root / FILE, document)


def is_workflow(target: Path) -> bool:
    return (Path(target) / FILE).is_file()


def read(root: Path) -> Workflow:
    """Raises InputError for a manifest that is not one, or whose stages do not fit together."""
    path = Path(root) / FILE
    try:
        data = json.loads(path.read_text())
        if data["schema"] != SCHEMA:
            raise InputError(f"{path}: expected schema {SCHEMA}, got {data['schema']}")
        stages = tuple(
            Stage(**{**s, "removed": tuple(s.get("removed", ()))}) for s in data["stages"]
        )
        calculations = tuple(Calculation(**c) for c in data["calculations"])
        workflow = Workflow(Path(root), data["kind"], data["settings"], stages, calculations)
        _check_types(workflow)
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(f"{path} is not a workflow: {type(err).__name__} {err}") from None
    known: set[str] = set()
    for stage in stages:
        if stage.does not in GIVES:
            raise InputError(
                f"{path}: stage {stage.name} does '{stage.does}'{did_you_mean(stage.does, GIVES)}; "
                f"known: {', '.join(GIVES)}"
            )
        for source in stage.takes.values():
            if source not in known and not (Path(root) / source).is_file():
                raise InputError(f"{path}: stage {stage.name} takes {source}, which none gives")
        known |= {f"{stage.name}/{file}" for file in GIVES[stage.does]}
    for calculation in calculations:
        for name in calculation.stages.values():
            workflow.stage(name)
    return workflow


def _check_types(workflow: Workflow) -> None:
    """Raises what a manifest edited into nonsense would raise later."""
    for stage in workflow.stages:
        if not (isinstance(stage.replicas, int) and stage.replicas >= 1):
            raise ValueError(f"stage {stage.name}: replicas must be at least 1")
        if any(not isinstance(x, str) for x in (stage.name, stage.does, *stage.takes.values())):
            raise TypeError(f"stage {stage.name}: names must be text")
    for crystal in workflow.settings["crystals"].values():
        for key in ("atoms", "formula_units", "n_ws"):
            int(crystal[key])
    for key in ("pressure_bar", "timestep_fs"):
        float(workflow.settings[key])


def stage_of(folder: Path) -> tuple[Workflow, Stage] | None:
    """The workflow and stage that *folder* (a stage's, or a replica's) belongs to."""
    folder = Path(folder).resolve()
    root = next((up for up in folder.parents if is_workflow(up)), None)
    if root is None:
        return None
    workflow = read(root)
    inside = [s for s in workflow.stages if folder.is_relative_to((root / s.name).resolve())]
    return (workflow, inside[0]) if inside else None


def einstein_terms(workflow: Workflow, stage: Stage, run) -> dict[str, Any]:
    """What the analysis of an einstein->model stage cannot see in its own folder: N_WS of the
    perfect crystal, for defects too, and the pressure of P V; nothing for other stages."""
    if not run.lambda_path.absolute:
        return {}
    crystals = workflow.settings["crystals"]
    label = stage.name.split("/")[0]
    crystal = crystals[label if label in crystals else "crystal"]
    return {"n_ws": int(crystal["n_ws"]), "pressure": workflow.settings["pressure_bar"]}


# --- done or not --------------------------------------------------------------------------------


def fingerprint(workflow: Workflow, stage: Stage) -> dict[str, str]:
    """sha256 of every file that decides what *stage* computes, by path relative to the root."""
    files = stage.inputs(workflow.root) + [workflow.root / s for s in stage.takes.values()]
    return {os.path.relpath(f, workflow.root): sha256(f) for f in sorted(set(files)) if f.is_file()}


def mark_done(workflow: Workflow, stage: Stage, evaluations: int, notes: dict[str, Any]) -> None:
    """Write ``done.json``.  evaluations: of the model, by all replicas of this stage."""
    document = {
        "from": fingerprint(workflow, stage),
        "gives": {f.name: sha256(f) for f in stage.gives(workflow.root)},
        "evaluations": evaluations,
        **notes,
    }
    write_json(workflow.root / stage.name / DONE, document)


def done(workflow: Workflow, stage: Stage) -> dict[str, Any] | None:
    """What ``done.json`` says, None if the stage is not done.

    Raises InputError if the stage was edited, or fed by something else, after it was run: nothing
    is run again, or left standing, without being asked for.
    """
    path = workflow.root / stage.name / DONE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        was, gave = dict(record["from"]), dict(record["gives"])
        int(record["evaluations"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged: delete it to run the stage again") from None
    now = fingerprint(workflow, stage)
    changed = sorted(f for f in was.keys() | now.keys() if was.get(f) != now.get(f))
    if changed:
        raise InputError(
            f"{changed[0]} changed after stage {stage.name} was run: run again from there with "
            f"'alchemdriver run {workflow.root} --from {stage.name}', or put it back"
        )
    files = stage.gives(workflow.root)
    if any(not f.is_file() or f.name not in gave for f in files):
        return None
    for file in files:
        # a result may be analysed again; what later stages start from must be what was averaged
        if file.name != "result.json" and sha256(file) != gave[file.name]:
            raise InputError(
                f"{file} changed after stage {stage.name} was run: put it back, or run again with "
                f"'alchemdriver run {workflow.root} --from {stage.name}'"
            )
    return record
