"""Execute the stages of a workflow that are not done, feeding each from those before it."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..analysis.files.trajectory import trajectory_file
from ..analysis.report.text import with_error
from ..contract import manifest
from ..contract.files import write_files
from ..contract.manifest import Notes, Stage, Workflow
from ..contract.relaxation import read_settings
from ..contract.run_input import RunInput, read_input
from ..contract.springs import read_springs, write_springs
from ..contract.xyz import read_xyz, write_xyz
from ..errors import AlchemdriverError, InputError, RunError
from ..execute.progress import Progress
from ..execute.supervisor import HANDOVER, Resources, execute
from ..paths.formulas import lattice_translations
from ..prepare.tree import edit_parameters, parameters_of
from ..records import Structure
from ..server.lock import only_server
from . import averages, relax
from .limits import too_short
from .symmetry import space_group

log = logging.getLogger(__name__)
OLD = "old"  # folder of what --from puts aside


def run_workflow(
    root: Path,
    options: Resources,
    report: Callable[[str, Progress, bool], None],
    say: Callable[[str], None],
    start_over_from: str | None = None,
) -> None:
    """Run everything that is not done.

    A stage starts as soon as its sources are done and ``options.jobs`` allows.
    report: as of ``execute``.  say: one line when a stage starts or ends.
    start_over_from: a stage whose outputs, and those of all that depend on it, are put aside first.
    Raises InputError, RunError or OutOfTime; what is done stays done.
    """
    workflow = manifest.read(root)
    with only_server(workflow.root, HANDOVER):
        if start_over_from is not None:
            for stage in workflow.after(workflow.stage(start_over_from)):
                put_aside(workflow, stage)
        course = _Course(workflow, options, say)
        execute(course.next_inputs(), options, report, say, more=course.after)
        if course.failed:
            others = f" (and {len(course.failed) - 1} more)" if len(course.failed) > 1 else ""
            raise RunError(f"{course.failed[0]}{others}")


class _Course:
    """What is done, what runs, and what can run next."""

    def __init__(self, workflow: Workflow, options: Resources, say: Callable[[str], None]):
        self.workflow = workflow
        self.options = options
        self.say = say
        self.done = {
            s.name
            for s in workflow.stages
            if manifest.done(workflow, s) is not None and not manifest.lengthened(workflow, s)
        }
        self.left: dict[str, set[Path]] = {}  # inputs that a started stage still waits for
        self.failed: list[str] = []  # why stages ended without what they should give
        if self.done:
            say(f"{len(self.done)} of {len(workflow.stages)} stages are done")

    def next_inputs(self) -> list[Path]:
        """Feed and start every stage that can run now; returns their inputs."""
        found: list[Path] = []
        stages = self.workflow.stages
        for number, stage in enumerate(stages, 1):
            if stage.name in self.done or stage.name in self.left:
                continue
            if any(s.name not in self.done for s in self.workflow.sources(stage)):
                continue
            feed(self.workflow, stage)
            self.say(f"[{number}/{len(stages)}] {stage.name}: {stage.does}")
            paths = [p.resolve() for p in stage.inputs(self.workflow.root)]
            self.left[stage.name] = set(paths)
            found += paths
        return found

    def after(self, path: Path) -> list[Path]:
        """Called when the run of *path* is finished; what can run now."""
        for name, waiting in self.left.items():
            if path not in waiting:
                continue
            waiting.discard(path)
            if waiting:
                return []
            stage = self.workflow.stage(name)
            try:
                self._finish(stage, _evaluations(self.workflow, stage))
            except AlchemdriverError as err:  # what does not depend on it goes on
                self.failed.append(str(err))
                manifest.forget(self.workflow, stage)
                self.say(f"    {name}: {err}")
            return self.next_inputs()
        return []

    def _finish(self, stage: Stage, evaluations: int) -> None:
        self.say(finish(self.workflow, stage, evaluations))
        self.done.add(stage.name)


def _evaluations(workflow: Workflow, stage: Stage) -> int:
    """Of the model: one per step and bead, and one for the start."""
    if stage.does == "relax":
        return relax.evaluations(workflow.root / stage.name)
    runs = [read_input(p) for p in stage.inputs(workflow.root)]
    return sum((run.total_steps + 1) * run.beads for run in runs)


def put_aside(workflow: Workflow, stage: Stage) -> None:
    """Move everything but the editable inputs of a stage to its ``old/N``; nothing is deleted."""
    folder = workflow.root / stage.name
    keep = set(stage.inputs(workflow.root))
    moving = [
        f
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f not in keep and OLD not in f.relative_to(folder).parts
    ]
    if not moving:
        return
    n = 1
    while (folder / OLD / str(n)).exists():
        n += 1
    for file in moving:
        target = folder / OLD / str(n) / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, target)
    for path in keep:
        if path.name == "input.xml":
            fed = {"tether": None} if "tether" in stage.takes else {}
            edit_parameters(path, {"digest": None, **fed})


# --- feeding ------------------------------------------------------------------------------------


def feed(workflow: Workflow, stage: Stage) -> None:
    """Bring what the stage takes into every folder it runs in.

    Raises InputError if a file there differs from its source: a choice of the user's, that only
    the user can undo.
    """
    sources = {key: workflow.root / source for key, source in stage.takes.items()}
    structure = read_xyz(sources["start.xyz"])
    for path in stage.inputs(workflow.root):
        if not path.is_file():
            raise InputError(f"{path} is missing: put it back, or prepare the workflow again")
        start = path.parent / "start.xyz"
        _place(start, lambda p: write_xyz(p, structure), stage)
        if "einstein.extxyz" in sources:
            constants = np.delete(_constants(sources["einstein.extxyz"], stage), stage.removed)
            if len(constants) != len(structure):
                raise InputError(
                    f"stage {stage.name} starts from {len(structure)} atoms, but "
                    f"{sources['einstein.extxyz']} without those removed has {len(constants)}"
                )
            write = partial(write_springs, anchors=structure, constants=constants)
            _place(path.parent / "einstein.extxyz", write, stage)
        if "tether" in sources:
            if not stage.removed:
                raise InputError(f"stage {stage.name} takes a tether, but removes no atom")
            k = float(_constants(sources["tether"], stage)[list(stage.removed)].mean())
            if "tether" not in parameters_of(path):  # the user's own stays
                edit_parameters(path, {"tether": repr(k)})
        check_conditions(workflow, stage, path)


def check_conditions(workflow: Workflow, stage: Stage, path: Path) -> None:
    """Raises InputError where an input was edited to another temperature or pressure than the
    workflow's: its stages would then add up to the free energy of no state at all."""
    pressure = workflow.settings.pressure_bar
    conditions: list[tuple[str, float | None, float]]
    if stage.does == "relax":
        conditions = [("pressure", read_settings(path).pressure_bar, pressure)]
    else:
        try:
            run = read_input(path)
        except InputError as err:
            raise InputError(f"{path}: {str(err).removeprefix(f'{path}: ')}") from None
        check_frames(stage, run)
        conditions = [("temperature", run.temperature, stage.temperature or 0.0)]
        if run.ensemble not in ("nve", "nvt"):
            conditions.append(("pressure", run.pressure, pressure))
    for name, value, expected in conditions:
        if value is None or abs(value - expected) > 1e-6 * max(1.0, abs(expected)):
            raise InputError(
                f"{path}: {name} is {value}, but the workflow is for {expected:g}: prepare another "
                "workflow for other conditions"
            )


def check_frames(stage: Stage, run: RunInput) -> None:
    """Raises InputError where a run will not print the positions that its stage looks at when it is
    over: too late to hear of it."""
    printed = trajectory_file(run)
    if printed is None:
        raise InputError(f"{run.path} prints no positions, which stage {stage.name} needs")
    why = too_short(stage.does, printed[1], run.total_steps, run.parameters.equilibrate or 0)
    if why is not None:
        raise InputError(f"{run.path}: {why}")


def _place(path: Path, write: Callable[[Path], None], stage: Stage) -> None:
    with tempfile.TemporaryDirectory(prefix="alchemdriver-") as scratch:
        fresh = Path(scratch) / path.name
        write(fresh)
        content = fresh.read_bytes()
    if path.is_file():
        if path.read_bytes() != content:
            raise InputError(
                f"{path} is not what stage {stage.name} takes from {stage.takes.get(path.name)}: "
                "delete it to take that, or name another source in workflow.json"
            )
        return
    write_files({path: content})


def _constants(path: Path, stage: Stage) -> np.ndarray:
    """Spring constants (eV/Å²) of the crystal that the stage removes atoms from."""
    _, constants = read_springs(path)
    outside = [i for i in stage.removed if i >= len(constants)]
    if outside:
        raise InputError(
            f"stage {stage.name} removes atom {outside[0]}, but {path} has atoms 0 to "
            f"{len(constants) - 1}"
        )
    return constants


# --- finishing ----------------------------------------------------------------------------------


def finish(workflow: Workflow, stage: Stage, evaluations: int) -> str:
    """Derive what the stage gives, mark it done, and say in one line what came out."""
    folder = workflow.root / stage.name
    notes: Notes = {}
    if stage.does == "relax":
        relaxed = read_xyz(folder / "relaxed.xyz")
        check_translations(workflow, stage, relaxed)
        line = f"cell {_cell(relaxed)} after {evaluations} evaluations"
    elif stage.does == "free energy":
        line = _free_energy(workflow, stage, notes)
    else:
        run = read_input(stage.inputs(workflow.root)[0])
        found = averages.average(run, space_group(run.structure))
        write_xyz(folder / "mean.xyz", found.structure)
        notes |= {
            "equilibration_ps": found.equilibration,
            "frames": found.frames,
            "off_site_A": found.off_site,
            "strain": found.strain,
        }
        line = f"mean cell {_cell(found.structure)}"
        if stage.does == "springs":
            k = averages.spring_constants(run.kelvin, found.mean_square_displacement)
            write_springs(folder / "einstein.extxyz", found.structure, k)
            kinds: dict[str, list[float]] = {s: [] for s in run.structure.symbols}
            for symbol, constant in zip(run.structure.symbols, k, strict=True):
                kinds[symbol].append(float(constant))
            notes["spring_constants_eV_per_A2"] = {
                s: tuple(sorted(set(v))) for s, v in kinds.items()
            }
            line = "spring constants (eV/Å²) " + ", ".join(
                f"{s} {min(v):.3f}" + (f" to {max(v):.3f}" if max(v) > min(v) + 5e-4 else "")
                for s, v in kinds.items()
            )
        line += f"; sites off by at most {found.off_site:.2f} Å, {found.frames} frames"
    manifest.mark_done(workflow, stage, evaluations, notes)
    return f"    {stage.name}: {line}"


def check_translations(workflow: Workflow, stage: Stage, relaxed: Structure) -> None:
    """Raises RunError where a crystal relaxed to one of other lattice translations than N_WS was
    counted from: atoms of the start were off their sites, or it went to another phase.  Eq. 19
    would be wrong by kT times the logarithm of the ratio."""
    source = workflow.root / stage.takes["start.xyz"]
    if workflow.settings.n_ws is not None or source.name not in ("crystal.xyz", "initial.xyz"):
        return
    # a relaxation ends when forces are small, which leaves atoms a little off
    assumed, found = (
        lattice_translations(s.cell, s.positions, s.symbols, (1e-2,))
        for s in (read_xyz(source), relaxed)
    )
    if found != assumed:
        raise RunError(
            f"{workflow.root / stage.name}: relaxed to a crystal with {found} lattice "
            f"translations, but N_WS = {assumed} was counted from the start: prepare again from "
            "its relaxed.xyz, or give --n-ws"
        )


def _free_energy(workflow: Workflow, stage: Stage, notes: Notes) -> str:
    from .. import analysis

    runs = [read_input(p) for p in stage.inputs(workflow.root)]
    notes["off_site_A"] = tuple(averages.check_holds(run) for run in runs)
    result = analysis.analyze(
        [run.path for run in runs],
        out=workflow.root / stage.name,
    )
    analysis.save_plots(result, result.folder)
    total = result.total("BAR")
    if total.value is None:
        raise RunError(f"{workflow.root / stage.name}: no total: {'; '.join(result.warnings)}")
    return f"{result.quantity}: {with_error(total.value, total.se)} per cell (BAR)"


def _cell(structure: Structure) -> str:
    from ase.geometry import cell_to_cellpar

    a, b, c, *angles = cell_to_cellpar(structure.cell)
    text = f"{a:.4f} {b:.4f} {c:.4f} Å"
    return (
        text
        if np.allclose(angles, 90, atol=1e-3)
        else text + " " + " ".join(f"{x:.2f}°" for x in angles)
    )
