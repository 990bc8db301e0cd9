"""``workflow.json``: the stages of a calculation and which outputs feed which inputs.

The file is written once by ``prepare`` and meant to be read.  What has been done is not in it:
every finished stage holds a ``done.json`` with the sha256 of what it started from and of what it
gave.  So a stage edited by hand, or fed by an earlier one that was run again, is noticed.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypedDict

from ..errors import InputError, did_you_mean
from .files import sha256
from .run_input import RunInput
from .settings import (
    Crystal,
    CrystalSettings,
    Replicas,
    TransmuteSettings,
    VacancySettings,
    WorkflowSettings,
)
from .stored import Called, Count, Format, IfKnown, Index, Kelvin, Must, NotNegative, OneOf
from .target import only_lengthened

FILE = "workflow.json"
DONE = "done.json"

# What a stage does, and the files that it gives.
GIVES = {
    "relax": ("relaxed.xyz",),
    "mean structure": ("mean.xyz",),
    "springs": ("mean.xyz", "einstein.extxyz"),
    "free energy": ("result.json",),
}
_TAKES = ("start.xyz", "einstein.extxyz", "tether")
# A free energy, and the stages that it can be added up from.
_ADDED_UP = {
    "G": ({"crystal"},),
    "G_v": ({"crystal", "defect"}, {"crystal", "path"}),
    "ΔG": ({"initial", "final"}, {"path"}),
}
_ROLES = ("crystal", "defect", "initial", "final", "path")
_SETTINGS: dict[str, type[WorkflowSettings]] = {
    "crystal": CrystalSettings,
    "vacancy": VacancySettings,
    "transmute": TransmuteSettings,
}


def _stays_inside(name: str) -> bool:
    """Whether *name*, below any folder, is in that folder and in no other way called."""
    path = PurePosixPath(name)
    return (
        not path.is_absolute()
        and ".." not in path.parts
        and path.parts != ()
        and str(path) == name
        and name.isprintable()
        and len(name.encode()) < 1000
        and all(len(part.encode()) <= 255 for part in path.parts)
    )


Inside = Annotated[
    str, Must("a path below the workflow's folder such as 300K/02-npt", _stays_inside)
]


@dataclass(frozen=True)
class Stage:
    """One folder.  ``takes`` maps what it needs to the file that gives it, relative to the root:

    ``start.xyz``        the structure to start from
    ``einstein.extxyz``  spring constants; the anchors are the start's positions
    ``tether``           the same file: k of the removed atoms becomes the parameter 'tether'
    """

    name: Inside  # folder, relative to the workflow's
    does: Annotated[str, OneOf(tuple(GIVES))]
    takes: dict[Annotated[str, OneOf(_TAKES)], Inside]
    removed: tuple[Index, ...] = ()  # atoms of the springs' crystal that are removed
    replicas: Replicas = 1
    temperature: Kelvin | None = None  # None: relaxation

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
    """One free energy that stages add up to; see :mod:`alchemdriver.analysis.compare.workflow`."""

    quantity: Annotated[str, OneOf(tuple(_ADDED_UP))]
    route: Annotated[str, OneOf(("Frenkel–Ladd", "alchemical"))]
    temperature: Kelvin
    stages: dict[Annotated[str, OneOf(_ROLES)], str]  # role → stage name
    phase: str = ""  # label of the crystal, of transmutations
    state: str = ""  # 'initial' or 'final', of the end states of transmutations


@dataclass(frozen=True)
class Workflow:
    """A folder with its manifest."""

    root: Path
    kind: str  # 'crystal', 'vacancy' or 'transmute'
    settings: WorkflowSettings
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

    def crystal(self, label: str) -> Crystal:
        """The crystal of a phase, or the one there is; InputError if there is none called so."""
        crystals = self.settings.crystals
        found = crystals.get(label or "crystal") or crystals.get("crystal")
        if found is None:
            raise InputError(
                f"{self.root / FILE}: settings.crystals: no crystal '{label}'"
                f"{did_you_mean(label, crystals)}; there are {', '.join(crystals)}"
            )
        return found

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


# --- the file -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Document:
    kind: Annotated[str, OneOf(tuple(_SETTINGS))]
    settings: Any  # as the kind says
    stages: tuple[Stage, ...]
    calculations: tuple[Calculation, ...]


WORKFLOW = Format(
    "alchemdriver-workflow/1",
    _Document,
    remedy="correct it, or prepare the workflow again",
    by_hand=True,
)


def write(workflow: Workflow) -> None:
    """Write ``workflow.json`` into the root."""
    document = _Document(workflow.kind, workflow.settings, workflow.stages, workflow.calculations)
    WORKFLOW.write(workflow.root / FILE, document)


def is_workflow(target: Path) -> bool:
    return (Path(target) / FILE).is_file()


def read(root: Path) -> Workflow:
    """Raises InputError for a manifest that is not one, or whose stages do not fit together."""
    path = Path(root) / FILE
    document = WORKFLOW.read(path)
    settings = WORKFLOW.load(path, _SETTINGS[document.kind], document.settings, "settings")
    workflow = Workflow(Path(root), document.kind, settings, document.stages, document.calculations)
    wrong = next(_misfits(workflow), None)
    if wrong is not None:
        raise InputError(f"{path}: {wrong}: {WORKFLOW.remedy}")
    return workflow


def _misfits(workflow: Workflow) -> Iterator[str]:
    """What does not fit together, though every value by itself could be."""
    names = [s.name for s in workflow.stages]
    given: set[str] = set()
    for n, stage in enumerate(workflow.stages):
        at = f"stages[{n}]"
        beside = next((s for s in names[:n] if _overlap(s, stage.name)), None)
        if beside is not None:
            yield f"{at}.name: the folder '{stage.name}' is that of stage '{beside}', or in it"
        if "start.xyz" not in stage.takes:
            yield f"{at}.takes: expected a 'start.xyz'"
        for key, source in stage.takes.items():
            later = source not in given and str(PurePosixPath(source).parent) in names
            if later or (source not in given and not (workflow.root / source).is_file()):
                yield f"{at}.takes.{key}: stage {stage.name} takes {source}, which none gives"
        if (stage.temperature is None) != (stage.does == "relax"):
            yield f"{at}.temperature: a relaxation has none (null), every other stage has one"
        given |= {f"{stage.name}/{file}" for file in GIVES[stage.does]}
        yield from _leaving(workflow.root, stage, at)
    for n, c in enumerate(workflow.calculations):
        at = f"calculations[{n}]"
        if set(c.stages) not in _ADDED_UP[c.quantity]:
            sums = " or ".join("+".join(sorted(roles)) for roles in _ADDED_UP[c.quantity])
            yield f"{at}.stages: {c.quantity} is made of {sums}, not of {'+'.join(c.stages)}"
        if c.quantity == "G_v" and not isinstance(workflow.settings, VacancySettings):
            yield f"{at}.quantity: G_v belongs to a vacancy, not to {workflow.kind}"
        for name in c.stages.values():
            if workflow.stage(name).does != "free energy":
                yield f"{at}.stages: {name} gives no free energy"
        workflow.crystal(c.phase)


def _overlap(a: str, b: str) -> bool:
    """Whether one folder is the other, or lies in it."""
    return PurePosixPath(a).is_relative_to(b) or PurePosixPath(b).is_relative_to(a)


def _leaving(root: Path, stage: Stage, at: str) -> Iterator[str]:
    """Folders and files of *stage* that links put elsewhere."""
    top = root.resolve()
    files = [*stage.inputs(root), *stage.gives(root), *(root / s for s in stage.takes.values())]
    for file in dict.fromkeys([root / stage.name, *(f.parent for f in files), *files]):
        if not file.resolve().is_relative_to(top):
            yield f"{at}: {file.relative_to(root)} leads out of the workflow's folder"


def stage_of(folder: Path) -> tuple[Workflow, Stage] | None:
    """The workflow and stage that *folder* (a stage's, or a replica's) belongs to."""
    folder = Path(folder).resolve()
    root = next((up for up in folder.parents if is_workflow(up)), None)
    if root is None:
        return None
    workflow = read(root)
    inside = [s for s in workflow.stages if folder.is_relative_to((root / s.name).resolve())]
    return (workflow, inside[0]) if inside else None


class EinsteinTerms(TypedDict, total=False):
    """Arguments of ``analyze``."""

    n_ws: int
    pressure: float  # bar


def einstein_terms(workflow: Workflow, stage: Stage, run: RunInput) -> EinsteinTerms:
    """What the analysis of an einstein->model stage cannot see in its own folder: N_WS of the
    perfect crystal, for defects too, and the pressure of P V; nothing for other stages."""
    if not run.lambda_path.absolute:
        return {}
    crystal = workflow.crystal(stage.name.split("/")[0])
    return {"n_ws": crystal.n_ws, "pressure": workflow.settings.pressure_bar}


# --- done or not --------------------------------------------------------------------------------


class Notes(TypedDict, total=False):
    """What is worth knowing of a stage that is done; as the fields of Done."""

    equilibration_ps: float
    frames: int
    off_site_A: float | tuple[float, ...]
    strain: float
    spring_constants_eV_per_A2: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Done:
    """The content of ``done.json``."""

    came_from: Annotated[dict[str, str], Called("from")]  # sha256 of what decided the stage
    gives: dict[str, str]  # sha256 of each file that it gave
    evaluations: Count  # of the model, by all replicas
    equilibration_ps: Annotated[NotNegative | None, IfKnown()] = None  # left out at the start
    frames: Annotated[Count | None, IfKnown()] = None  # that averages are over
    # Å, how far mean sites are from the crystal's: in the run, or in the holds of each replica
    off_site_A: Annotated[float | tuple[float, ...] | None, IfKnown()] = None
    strain: Annotated[float | None, IfKnown()] = None  # of the mean cell against the start
    # the different ones of each element
    spring_constants_eV_per_A2: Annotated[dict[str, tuple[float, ...]] | None, IfKnown()] = None


DONE_FORMAT = Format(
    "alchemdriver-done/1", Done, remedy="delete it to run the stage again", unsigned=True
)


def fingerprint(workflow: Workflow, stage: Stage) -> dict[str, str]:
    """sha256 of every file that decides what *stage* computes, by path relative to the root."""
    files = stage.inputs(workflow.root) + [workflow.root / s for s in stage.takes.values()]
    return {os.path.relpath(f, workflow.root): sha256(f) for f in sorted(set(files)) if f.is_file()}


def mark_done(workflow: Workflow, stage: Stage, evaluations: int, notes: Notes) -> None:
    """Write ``done.json``.  evaluations: of the model, by all replicas of this stage."""
    gives = {f.name: sha256(f) for f in stage.gives(workflow.root)}
    record = Done(fingerprint(workflow, stage), gives, evaluations, **notes)
    DONE_FORMAT.write(workflow.root / stage.name / DONE, record)


def _changed(
    workflow: Workflow, stage: Stage, record: Done
) -> dict[str, tuple[str | None, str | None]]:
    """sha256 then and now of what decides *stage*, where they differ."""
    was, now = record.came_from, fingerprint(workflow, stage)
    names = sorted(f for f in was.keys() | now.keys() if was.get(f) != now.get(f))
    return {name: (was.get(name), now.get(name)) for name in names}


def lengthened(workflow: Workflow, stage: Stage) -> bool:
    """Whether *stage* was done and has been given more cycles since, and nothing else."""
    path = workflow.root / stage.name / DONE
    if not path.is_file():
        return False
    return only_lengthened(workflow.root, _changed(workflow, stage, DONE_FORMAT.read(path)))


def forget(workflow: Workflow, stage: Stage) -> None:
    """*stage* is not done: what it gave before it went on does not stand any more."""
    (workflow.root / stage.name / DONE).unlink(missing_ok=True)


def done(workflow: Workflow, stage: Stage) -> Done | None:
    """What ``done.json`` says, None if the stage is not done.

    What a stage gave before it was lengthened (see :mod:`.target`) stands until it is through.
    Raises InputError if the stage was edited, or fed by something else, after it was run: nothing
    is run again, or left standing, without being asked for.
    """
    path = workflow.root / stage.name / DONE
    if not path.is_file():
        return None
    record = DONE_FORMAT.read(path)
    gave = record.gives
    changed = _changed(workflow, stage, record)
    if changed and not only_lengthened(workflow.root, changed):
        raise InputError(
            f"{next(iter(changed))} changed after stage {stage.name} was run: run again from there "
            f"with 'alchemdriver run {shlex.quote(str(workflow.root))} --from {stage.name}', or "
            "put it back"
        )
    files = stage.gives(workflow.root)
    if any(not f.is_file() or f.name not in gave for f in files):
        return None
    for file in files:
        # a result may be analysed again; what later stages start from must be what was averaged
        if file.name != "result.json" and sha256(file) != gave[file.name]:
            raise InputError(
                f"{file} changed after stage {stage.name} was run: put it back, or run again with "
                f"'alchemdriver run {shlex.quote(str(workflow.root))} --from {stage.name}'"
            )
    return record
