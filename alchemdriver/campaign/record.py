"""``campaign.json``: the cases of a campaign and the runs of each.

It is written by ``alchemdriver campaign`` and only ever added to, by ``campaign add``.  What has
been done is not in it: see :mod:`.journal`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from ..contract.stored import Count, Format, IfKnown, Index, Positive
from ..errors import InputError
from ..prepare.protocols import Protocol, find

__all__ = [
    "FILE",
    "PLAN_FILE",
    "Campaign",
    "Case",
    "Run",
    "System",
    "Value",
    "is_campaign",
    "read",
    "write",
]

FILE = "campaign.json"
PLAN_FILE = "plan.toml"  # beside it: the plan as it was given; [run] and [slurm] are read from it
RUNS = "runs"  # folder of cases

Value = str | int | float


@dataclass(frozen=True)
class System:
    """A structure file of the campaign, and where it comes from."""

    file: str  # relative to the campaign
    sha256: str
    source: str  # the user's file
    # of substituted cells: what 'alchemdriver supercells' writes about them
    made: Annotated[dict[str, Value] | None, IfKnown()] = None


@dataclass(frozen=True)
class Case:
    """One point of the grid: what its replicas share."""

    name: str  # its folder below runs/
    system: str
    axes: dict[str, Value]  # what tells it from the others: structure, temperature, …
    options: dict[str, Value]  # of the protocol, by name
    seeds: tuple[Index, ...]  # one a run: of all λ of the first replica, then of the second, …
    lambdas: tuple[float, ...] = ()  # of windows; none: λ moves, or stands where an option says
    steps: Annotated[Count | None, IfKnown()] = None  # of one run; None: in stages
    evaluations: Annotated[Count | None, IfKnown()] = None  # of the model, by one run
    error: Annotated[Positive | None, IfKnown()] = None  # meV per unit, asked for

    @property
    def replicas(self) -> int:
        return len(self.seeds) // max(1, len(self.lambdas))

    def runs(self) -> Iterator[Run]:
        """Replica after replica."""
        width = max(1, len(self.lambdas))
        for n, seed in enumerate(self.seeds):
            replica, window = divmod(n, width)
            lam = self.lambdas[window] if self.lambdas else None
            yield Run(self, n, replica, window, seed, lam)


@dataclass(frozen=True)
class Run:
    """One folder that is run by itself."""

    case: Case
    number: int  # in its case
    replica: int
    window: int
    seed: int
    lam: float | None

    @cached_property
    def name(self) -> str:
        """Its folder below ``runs/``, which is also its name everywhere."""
        if self.case.steps is None:  # stages, which have folders of their own
            return self.case.name
        replica = f"replica-{self.replica + 1}"
        window = "" if self.lam is None else f"window-{self.window + 1}-"
        return f"{self.case.name}/{window}{replica}"


@dataclass(frozen=True)
class Campaign:
    """What is in the file; ``root`` is its folder."""

    protocol: str
    systems: dict[str, System]
    cases: tuple[Case, ...]

    @property
    def kind(self) -> Protocol:
        return find(self.protocol)

    @cached_property
    def runs(self) -> list[Run]:
        return [run for case in self.cases for run in case.runs()]

    @cached_property
    def by_name(self) -> dict[str, Run]:
        return {run.name: run for run in self.runs}


CAMPAIGN = Format(
    "alchemdriver-campaign/1", Campaign, remedy="put it back, or plan the campaign again"
)


def is_campaign(target: Path) -> bool:
    return (Path(target) / FILE).is_file()


def read(root: Path) -> Campaign:
    """Raises InputError for a folder without a campaign, or one that does not fit together."""
    path = Path(root) / FILE
    if not path.is_file():
        raise InputError(
            f"{root}: no {FILE}: expected a folder made by 'alchemdriver campaign plan'"
        )
    campaign = CAMPAIGN.read(path)
    lost = next((c for c in campaign.cases if c.system not in campaign.systems), None)
    if lost is not None:
        raise InputError(f"{path}: case {lost.name} has no system '{lost.system}'")
    return campaign


def write(root: Path, campaign: Campaign) -> None:
    from .. import __version__

    CAMPAIGN.write(Path(root) / FILE, campaign, {"alchemdriver": __version__})
