"""Settings of a calculation in stages, as ``workflow.json`` holds them; units in the names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ..errors import InputError
from .schedule import SHAPES
from .stored import Count, Index, Kelvin, Must, OneOf, Positive, check

ROUTES = ("both", "alchemical", "frenkel-ladd")
DTYPES = ("float64", "float32")
# A replica has a folder, and while it runs a process of its own.
Replicas = Annotated[int, Must("a whole number from 1 to 9999", lambda n: 1 <= n <= 9999)]


@dataclass(frozen=True)
class Common:
    """What every workflow needs, as it was given.  Raises InputError for what cannot be."""

    model: str
    temperatures_K: tuple[Kelvin, ...]
    pressure_bar: float
    timestep_fs: Positive
    md_steps: Count = 5000  # of every NPT and NVT average
    equilibrate: Count = 1000  # steps of each hold
    switch: Count = 4000  # steps of each switch
    cycles: Count = 2  # forward/backward pairs per replica
    replicas: Replicas = 4
    schedule: Annotated[str, OneOf(tuple(SHAPES))] = "poly9"
    seed: Index = 20404
    dtype: Annotated[str, OneOf(DTYPES)] = "float64"
    n_ws: Count | None = None  # of eq. 19; None: by spglib
    formula_units: Count | None = None
    route: Annotated[str, OneOf(ROUTES)] = "both"
    beads: Count = 1  # of mean structures and switches; springs come from classical dynamics
    head: str | None = None  # of a multi-head model

    def __post_init__(self) -> None:
        check(self)
        if not self.temperatures_K:
            raise InputError("temperatures_K: expected one or several numbers of K, got none")
        if len({f"{t:g}" for t in self.temperatures_K}) < len(self.temperatures_K):
            raise InputError(f"temperatures_K: two are called alike in {list(self.temperatures_K)}")


@dataclass(frozen=True)
class Crystal:
    """What was found of one crystal when the workflow was prepared."""

    atoms: Count
    formula: str  # reduced
    formula_units: Count  # in the cell
    space_group: str
    n_ws: Count  # N_WS of eq. 19


@dataclass(frozen=True, kw_only=True)
class CrystalSettings(Common):
    """Of ``prepare crystal``."""

    crystals: dict[str, Crystal]  # 'crystal'


@dataclass(frozen=True, kw_only=True)
class VacancySettings(Common):
    """Of ``prepare vacancy``."""

    sites: tuple[Index, ...]  # atoms that are removed
    removed: dict[str, Count]  # how many of each element
    configurations: Count  # sets of sites that symmetry makes of them
    chemical_potentials_eV: dict[str, float]  # per atom; empty: the crystal's own G/N
    crystals: dict[str, Crystal]  # 'crystal'

    def __post_init__(self) -> None:
        super().__post_init__()
        given, removed = sorted(self.chemical_potentials_eV), sorted(self.removed)
        if not removed:
            raise InputError("removed: expected the number of each element, got none")
        if given and given != removed:
            raise InputError(
                f"chemical_potentials_eV: expected {', '.join(removed)}, got {', '.join(given)}"
            )


@dataclass(frozen=True, kw_only=True)
class TransmuteSettings(Common):
    """Of ``prepare transmute``."""

    alchemy: str
    phases: tuple[str, ...]
    configurations: dict[str, Count]  # of each phase: sets of sites that symmetry makes
    crystals: dict[str, Crystal]  # of each phase
    # The same for the way back, in the symmetry of the final state: ΔG counts their ratio.
    configurations_initial: dict[str, Count] = field(default_factory=dict)
    # Of a phase whose ends have no formula unit in common: how many atoms change.
    substituted: dict[str, Count] = field(default_factory=dict)


WorkflowSettings = CrystalSettings | VacancySettings | TransmuteSettings
