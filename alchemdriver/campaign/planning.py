"""From a plan to ``campaign.json``: the grid, its systems, and a trial of every kind of run."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..contract import shelf
from ..contract.files import read_text, sha256_of, whole_folder, write_files
from ..contract.run_input import read_input
from ..contract.schedule import SHAPES
from ..errors import AlchemdriverError, InputError
from ..prepare.protocols import find
from ..prepare.windows import nodes
from . import record
from .folders import FILES, write_run
from .grid import Point, points
from .plan import Plan, Value, parse_toml, read_plan
from .record import Campaign, Case
from .systems import Systems

__all__ = ["Draft", "draft", "extend", "put", "save"]

_WHERE_LAMBDA_IS = ("windows", "lambdas")  # options that become the runs of a case
_FILES = ("springs", "masses_file", "second_phase")  # options that name files


@dataclass(frozen=True)
class Draft:
    """A campaign that is not on the disk yet."""

    campaign: Campaign
    files: dict[str, bytes]  # path in the campaign → content


def draft(path: Path) -> Draft:
    """The campaign that the plan in *path* asks for; one run of each kind is tried out.

    Runs of one kind differ in temperature, pressure and seed alone.  Raises InputError, one line.
    """
    plan = read_plan(path)
    home = path.resolve().parent
    kept = _Kept(home)
    cases = []
    seed = plan.seed
    try:
        systems = Systems(plan, home)
        for point in points(plan):
            case = _case(plan, point, systems.of(point), kept, seed)
            seed += len(case.seeds) * _stride(plan.protocol)
            cases.append(case)
        found = Campaign(plan.protocol, systems.found, tuple(cases))
        made = Draft(found, {**systems.files, **kept.files, record.PLAN_FILE: path.read_bytes()})
        return replace(made, campaign=_tried(made))
    except AlchemdriverError as err:
        raise type(err)(f"{path}: {err}") from None


def _case(plan: Plan, point: Point, system: str, kept: _Kept, seed: int) -> Case:
    kind = plan.kind
    options = dict(point.options)
    if plan.compositions is not None:  # the cell is what it is
        options = {k: v for k, v in options.items() if k not in ("supercell", "index")}
    lambdas: tuple[float, ...] = ()
    if kind.at_several_lambdas:
        windows, listed = (options.pop(name, None) for name in _WHERE_LAMBDA_IS)
        lambdas = tuple(
            nodes(
                windows if isinstance(windows, int) else None,
                None if listed is None else str(listed),
            )
        )
    for name, value in options.items():
        options[name] = kept.place(name, value)
    runs = plan.replicas * max(1, len(lambdas))
    if kind.in_stages:
        options["replicas"], runs = plan.replicas, 1
    seeds = tuple(range(seed, seed + runs))
    return Case(point.name, system, point.axes, options, seeds, lambdas, error=plan.error)


@dataclass
class _Kept:
    """Copies of the files that options name; ``files``: content by path in the campaign."""

    home: Path  # the plan's folder
    files: dict[str, bytes] = field(default_factory=dict)
    _places: dict[tuple[bool, Path], str] = field(default_factory=dict)

    def place(self, name: str, value: Value) -> Value:
        """*value*, or where the campaign keeps the file that it names.  Raises InputError."""
        text, model = str(value), name in ("model", "other")
        table = name == "schedule" and text not in SHAPES
        if not table and name not in _FILES and not (model and shelf.is_file(text)):
            return value
        path = self.home / text
        if (model, path) not in self._places:
            self._places[model, path] = self._keep(name, path, model)
        return self._places[model, path]

    def _keep(self, name: str, path: Path, model: bool) -> str:
        if not path.is_file():
            raise InputError(f"{name}: file {path} does not exist")
        for file in shelf.files_of(path) if model else [path]:
            if not file.is_file():
                raise InputError(f"{name}: file {file} does not exist")
            inside, content = f"{FILES}/{file.name}", file.read_bytes()
            if self.files.setdefault(inside, content) != content:
                raise InputError(
                    f"{name}: two files of the plan are called {file.name}: rename one"
                )
        return f"{FILES}/{path.name}"


def _tried(made: Draft) -> Campaign:
    """The campaign with steps and evaluations of its runs, one of each kind written to a scratch
    folder.  Raises InputError for the first that cannot be."""
    sizes: dict[str, tuple[int | None, int | None]] = {}
    found = []
    with tempfile.TemporaryDirectory(prefix="alchemdriver-") as scratch:
        root = Path(scratch)
        put(root, made.files)
        for case in made.campaign.cases:
            kind = json.dumps([case.system, _same_for_all(case)], sort_keys=True)
            if kind not in sizes:
                sizes[kind] = _size(root, made.campaign, case, root / f"trial-{len(sizes)}")
            steps, evaluations = sizes[kind]
            found.append(replace(case, steps=steps, evaluations=evaluations))
    return replace(made.campaign, cases=tuple(found))


def _same_for_all(case: Case) -> dict[str, Value]:
    return {k: v for k, v in case.options.items() if k not in ("temperature", "pressure")}


def _size(
    root: Path, campaign: Campaign, case: Case, folder: Path
) -> tuple[int | None, int | None]:
    try:
        write_run(root, campaign, next(case.runs()), folder)
        if campaign.kind.in_stages:
            if case.error is not None:
                raise InputError(
                    "error: stages are not planned by it; run each with 'alchemdriver run FOLDER "
                    "--error'"
                )
            return None, None
        run = read_input(folder / "input.xml")
        path = run.lambda_path
        alone = run.schedule is None and not case.lambdas
        if case.error is not None and (path.constant or path.sweeps_temperature or alone):
            raise InputError(f"error: {campaign.protocol} gives no single free energy: remove it")
    except AlchemdriverError as err:
        text = str(err).replace(f"{root}/", "")
        raise type(err)(f"case {case.name}: {text}") from None
    return run.total_steps, (run.total_steps + 1) * run.beads


def put(root: Path, files: dict[str, bytes]) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    write_files({root / name: content for name, content in files.items()})


def save(made: Draft, root: Path) -> None:
    """Write the campaign: rows, structures, models, the plan.  Raises InputError where there is one
    already."""
    if record.is_campaign(root):
        raise InputError(
            f"{root} holds a campaign: choose another folder, or extend it with 'alchemdriver "
            "campaign add'"
        )
    with whole_folder(root) as place:
        put(place, made.files)
        record.write(place, made.campaign)


# --- more -----------------------------------------------------------------------------------------


def extend(root: Path, made: Draft) -> tuple[int, int]:
    """Add what *made* has and the campaign in *root* has not: cases, replicas, a tighter error.

    What is there stays, with its seeds; new runs have new ones.  Returns the numbers of new cases
    and runs.  Raises InputError where both say something else about one case, or one file.
    """
    old, new = record.read(root), made.campaign
    if old.protocol != new.protocol:
        raise InputError(f"{root} is of protocol {old.protocol}, the plan of {new.protocol}")
    for name, system in new.systems.items():
        if name in old.systems and old.systems[name].sha256 != system.sha256:
            raise InputError(f"structure {name} is not what it was in {root}: give it another name")
    for inside, content in made.files.items():
        path = root / inside
        if inside == record.PLAN_FILE or not path.is_file():
            continue
        with open(path, "rb") as f:
            if sha256_of(f) != sha256_of(io.BytesIO(content)):
                raise InputError(f"{inside} is not what it was in {root}: give it another name")
    _check_settings(root, made)
    cases, seed = {c.name: c for c in old.cases}, _next_seed(old, new)
    there_as = {_content(old, c): c.name for c in old.cases}
    more_cases = more_runs = 0
    for case in new.cases:
        there = cases.get(case.name)
        if there is None:
            twin = there_as.get(_content(new, case))
            if twin is not None:
                raise InputError(
                    f"case {case.name} is there as {twin}, and would be computed again: leave it "
                    "out with [[exclude]], or plan another campaign"
                )
            seeds = tuple(seed + n for n in range(len(case.seeds)))
            more_cases += 1
        else:
            _check_same(there, case)
            extra = max(0, len(case.seeds) - len(there.seeds))
            seeds = there.seeds + tuple(range(seed, seed + extra))
        added = len(seeds) - (0 if there is None else len(there.seeds))
        seed, more_runs = seed + added * _stride(new.protocol), more_runs + added
        cases[case.name] = replace(case, seeds=seeds)
    fresh = {
        name: content
        for name, content in made.files.items()
        if name == record.PLAN_FILE or not (root / name).exists()
    }
    put(root, fresh)
    record.write(
        root, Campaign(old.protocol, {**old.systems, **new.systems}, tuple(cases.values()))
    )
    return more_cases, more_runs


def _content(campaign: Campaign, case: Case) -> tuple[object, ...]:
    """What decides the numbers of *case*, whatever it is called."""
    options = json.dumps(case.options, sort_keys=True)
    return campaign.systems[case.system].sha256, options, case.lambdas


def _check_settings(root: Path, made: Draft) -> None:
    """Raises InputError if the plan would put other [run] and [slurm] over those that stand there,
    which people edit."""
    path = root / record.PLAN_FILE
    there = parse_toml(read_text(path), path)
    given = parse_toml(made.files[record.PLAN_FILE].decode("utf-8"), path)
    for table in ("run", "slurm"):
        if there.get(table) != given.get(table):
            raise InputError(f"[{table}] is not that of {path}: copy it into the plan")


def _next_seed(*campaigns: Campaign) -> int:
    """Larger than any so far."""
    last = max(seed for c in campaigns for case in c.cases for seed in case.seeds)
    return last + _stride(campaigns[0].protocol)


def _stride(protocol: str) -> int:
    """Seeds that one run uses: stages have replicas of their own, and count up themselves."""
    return 10_000 if find(protocol).in_stages else 1


def _check_same(there: Case, case: Case) -> None:
    old = {"system": there.system, "lambdas": there.lambdas, **there.options}
    new = {"system": case.system, "lambdas": case.lambdas, **case.options}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise InputError(
                f"case {case.name} is there with {name} = {old.get(name)}, the plan says "
                f"{new.get(name)}: list both, or plan another campaign"
            )
