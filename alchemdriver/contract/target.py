"""``target.json``: the error that a calculation is to reach, how it went, and what was lengthened.

The file lies beside the input, beside the replicas, or beside ``workflow.json``.  Every lengthening
of inputs is written into it before an input is touched, with the sha256 of each before and after:
whoever is stopped in between is finished by the next, and a stage whose input changed by this alone
is not taken for one that was edited.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..errors import InputError
from .files import sha256
from .stored import Count, Format, Index, NotNegative, OneOf, Positive
from .text import parse_energy

FILE = "target.json"
PER = ("cell", "atom", "formula-unit", "site")


@dataclass(frozen=True)
class Asked:
    """What the user wants."""

    error: Positive  # eV
    per: Annotated[str, OneOf(PER)]  # of what the error is

    @classmethod
    def of(cls, error: str, per: str) -> Asked:
        """From the words of a command: '2meV', 'formula-unit'.  InputError."""
        if per not in PER:
            raise InputError(f"per: expected {', '.join(PER[:-1])} or {PER[-1]}, got '{per}'")
        return cls(parse_energy(error, "error"), per)

    def __str__(self) -> str:
        return f"{1e3 * self.error:.3g} meV per {self.per.replace('-', ' ')}"


@dataclass(frozen=True)
class Seen:
    """A total at one look, in eV per what the error was asked for."""

    name: str
    value: float
    error: NotNegative | None  # stated; None: not known yet
    deciding: NotNegative | None  # what was compared with the error asked for


@dataclass(frozen=True)
class Look:
    """What was known when it was decided whether to go on."""

    asked: Asked
    evaluations: Index  # of the model, by everything until then
    totals: tuple[Seen, ...]
    cycles: dict[str, tuple[Index, ...]]  # of each replica, by stage or run
    met: bool
    # s, of the clock, for an evaluation since the look before; None: nothing was evaluated
    seconds_per_evaluation: NotNegative | None = None


@dataclass(frozen=True)
class Lengthening:
    """Inputs that are made longer together; by path below the folder of the file."""

    cycles: dict[str, Count]
    before: dict[str, str]  # sha256
    after: dict[str, str]  # sha256


@dataclass(frozen=True)
class Target:
    """The content of the file."""

    asked: Asked
    looks: tuple[Look, ...] = ()
    lengthened: tuple[Lengthening, ...] = ()

    @property
    def speed(self) -> float | None:
        """s for an evaluation, when it was last seen."""
        known = [x.seconds_per_evaluation for x in self.looks]
        return next((s for s in reversed(known) if s is not None), None)


TARGET = Format(
    "alchemdriver-target/1",
    Target,
    remedy="restore it, or delete it, in a workflow only when all stages are done with the lengths "
    "in their inputs: inputs keep their lengths, and the next look begins anew",
)


def read(home: Path) -> Target | None:
    """None where nothing was asked for.  Raises InputError."""
    path = Path(home) / FILE
    return TARGET.read(path) if path.is_file() else None


def write(home: Path, target: Target) -> None:
    TARGET.write(Path(home) / FILE, target)


def relative(home: Path, path: Path) -> str:
    """*path* as the file names it."""
    return os.path.relpath(path, home)


def unfinished(home: Path, target: Target) -> dict[str, int]:
    """Cycles of the inputs that the last lengthening has not reached: somebody was stopped.

    An input that is neither as it was before nor as it is to be was edited since, and is left.
    """
    if not target.lengthened:
        return {}
    last = target.lengthened[-1]
    return {
        name: cycles
        for name, cycles in last.cycles.items()
        if (Path(home) / name).is_file() and sha256(Path(home) / name) == last.before[name]
    }


def only_lengthened(home: Path, changed: Mapping[str, tuple[str | None, str | None]]) -> bool:
    """Whether *changed* (path → sha256 then and now) are inputs that were lengthened since, and
    nothing else."""
    target = read(home)
    if target is None or not changed:
        return False
    for name, (then, now) in changed.items():
        known, later = then, []
        for step in target.lengthened:
            if step.before.get(name) == known:
                known = step.after[name]
                later.append(known)
        if now not in later:
            return False
    return True
