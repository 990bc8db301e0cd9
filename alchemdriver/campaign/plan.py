"""A plan, as people write it: a TOML file in which lists multiply."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..composition.supercells import METHODS
from ..contract.families import EVALUATORS
from ..contract.files import read_text
from ..contract.stored import Count, Format, Index, Kelvin, Must, OneOf, Positive
from ..contract.text import parse_wall_time
from ..errors import InputError
from ..prepare.protocols import Protocol, find

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Compositions", "Override", "Plan", "RunSettings", "Slurm", "read_plan"]

Value = str | int | float
Choice = Value | tuple[Value, ...]  # one value, or a list that multiplies
Words = Annotated[
    tuple[str, ...], Must("a list with at least one text", lambda words: len(words) > 0)
]


def _is_time(text: str) -> bool:
    try:
        return parse_wall_time(text) > 0
    except InputError:
        return False


def _is_device(text: str) -> bool:
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text) is not None


Time = Annotated[str, Must("a time such as 4:00:00 or 2-12:00:00", _is_time)]


@dataclass(frozen=True)
class Compositions:
    """``[compositions]``: mixed sites that become whole atoms before anything is run."""

    sublattices: Words  # as --alchemy of 'alchemdriver supercells'
    # one composition each: shares of one sublattice, or a list of them for every sublattice
    shares: tuple[tuple[float | tuple[float, ...], ...], ...]
    seed: Index
    method: Annotated[str, OneOf(METHODS)] = "random"
    samples: Count = 1  # cells of each composition


@dataclass(frozen=True)
class Override:
    """``[[override]]``: other options for the cases that *where* names."""

    where: dict[str, Choice]
    set: dict[str, Value]


@dataclass(frozen=True)
class RunSettings:
    """``[run]``: how runs are computed.  Nothing here changes physics."""

    slice: Time = "4:00:00"  # the longest that one run keeps its place
    retries: Index = 2  # times that a run is tried again after a failure, if it went no further
    clients: Count = 1  # per run
    threads: Count = 1  # per client
    runs_per_gpu: Count = 1
    evaluator: Annotated[str, OneOf(EVALUATORS)] = "auto"
    # cuda where workers have GPUs, else cpu
    device: Annotated[str, Must("auto, cpu, cuda, cuda:1 or mps", _is_device)] = "auto"


@dataclass(frozen=True)
class Slurm:
    """``[slurm]``: what a batch job of workers asks for."""

    walltime: Time
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: Count = 1  # per job
    jobs: Count = 1  # at a time
    gpus_per_node: Index = 0
    cores_per_node: Count | None = None
    exclusive: bool = False
    options: tuple[str, ...] = ()  # more '#SBATCH' lines, without that word
    worker_init: tuple[str, ...] = ()  # lines of the job script before the workers start


@dataclass(frozen=True)
class Plan:
    """A whole plan; see docs/campaigns.md."""

    protocol: str
    seed: Index  # of the first run; those that follow count up
    structures: dict[str, Path] | tuple[Path, ...]  # name → file; a list is named by its files
    models: Words
    temperatures: Annotated[
        tuple[Kelvin, ...], Must("a list with at least one temperature (K)", lambda t: len(t) > 0)
    ]
    alchemies: tuple[str, ...] = ()
    pressures: tuple[float, ...] = ()  # bar
    supercells: Words = ("1x1x1",)
    replicas: Count = 1
    error: Positive | None = None  # meV per unit of the result; a case that is there stops
    options: dict[str, Choice] = field(default_factory=dict)  # of the protocol, by name
    compositions: Compositions | None = None
    exclude: tuple[dict[str, Choice], ...] = ()
    override: tuple[Override, ...] = ()
    run: RunSettings = RunSettings()
    slurm: Slurm | None = None

    def __post_init__(self) -> None:
        if not self.structures:
            raise InputError("structures: expected at least one file")

    @property
    def kind(self) -> Protocol:
        """Raises InputError, with a suggestion, for an unknown protocol."""
        return find(self.protocol)

    def named_structures(self) -> dict[str, Path]:
        """Files by name.  Raises InputError where two files of a list are called alike."""
        if isinstance(self.structures, dict):
            return self.structures
        found = {path.stem: path for path in self.structures}
        if len(found) < len(self.structures):
            raise InputError(
                "structures: two files are called alike: name them, such as "
                "structures = {gamma = 'a/POSCAR', delta = 'b/POSCAR'}"
            )
        return found


PLAN = Format("alchemdriver-plan", Plan, remedy="correct the plan", by_hand=True)


def read_plan(path: Path) -> Plan:
    """Raises InputError, one line, for a file that is no plan."""
    return PLAN.load(path, Plan, parse_toml(read_text(path), path))


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """The tables of *text*, which stands in *path*.  InputError for what is no TOML, or a date."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise InputError(f"{path} is not TOML: {err}") from None
    strange = _date_in(data)
    if strange is not None:
        raise InputError(f"{path}: {strange}: expected text, a number or a list, got a date")
    return data


def _date_in(data: Any, at: str = "") -> str | None:
    """Where *data* holds what JSON has no word for."""
    if isinstance(data, Mapping):
        inner = [(f"{at}.{k}" if at else str(k), v) for k, v in data.items()]
    elif isinstance(data, list):
        inner = [(f"{at}[{n}]", v) for n, v in enumerate(data)]
    else:
        return None if isinstance(data, (str, int, float, bool)) else at
    return next((found for where, v in inner if (found := _date_in(v, where))), None)
