"""What a path between end states must say of itself; each path is one file beside this one.

A path owns what is particular to it: how H(x, λ) is composed, what the input must hold, where a
run starts, what the digest covers, and the analytic corrections between work and free energy.
Nobody else asks which path it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..errors import InputError
from ..records import Structure, Transformation
from .formulas import Correction
from .terms import Term

if TYPE_CHECKING:  # the contract reads inputs and asks paths to check them
    from ..contract.run_input import RunInput

__all__ = ["Absolute", "Ends", "Given", "Path", "Potentials", "rule"]


@dataclass(frozen=True)
class Ends:
    """What a path is laid between, and what it is made of."""

    transformation: Transformation
    structure: Structure  # λ = 0 species; its positions anchor tethers
    springs: tuple[np.ndarray, np.ndarray] | None = None  # anchors (N, 3) Å, constants (N,) eV/Å²
    tether: float | None = None  # eV/Å²
    scale: float | None = None  # s at λ = 1
    pressure: float | None = None  # bar; None at constant volume
    other: str | None = None  # the model at λ = 1


class Potentials(Protocol):
    """A loaded model as terms of H; :class:`alchemdriver.potential.hamiltonian.ModelTerms`."""

    def plain(self, symbols: Sequence[str | None]) -> Term:
        """The ordinary potential of *symbols* (N of them; None is no atom), without λ."""
        ...

    def alchemical(self, transformation: Transformation) -> Term:
        """The weighted graph between both ends, eqs. 4–7."""
        ...

    def other(self, symbols: Sequence[str | None]) -> Term:
        """As :meth:`plain`, of the model at λ = 1."""
        ...


@dataclass(frozen=True)
class Absolute:
    """A free energy of the whole cell at one temperature, from elsewhere."""

    temperature: float  # K
    value: float  # eV
    se: float | None  # eV, stated error; None: not known
    source: str
    dof: float | None = None  # degrees of freedom of that error; None: normal


@dataclass(frozen=True)
class Given:
    """What an analysis is told beside the files of a run."""

    n_ws: int | None = None  # N_WS of eq. 19; None: by spglib from the anchors
    pressure: float | None = None  # bar: adds P V at constant volume (eq. 20)
    reference: Absolute | None = None  # at the temperature of the run


class Path:
    """One way from λ = 0 to λ = 1.  The defaults are those of most paths."""

    # What stands alone in the ``alchemy`` key; '' for paths that element terms spell.
    word: ClassVar[str] = ""
    # The parameter that belongs to this path alone, and that it cannot do without.
    takes: ClassVar[str] = ""
    # Whether anything depends on λ.
    constant: ClassVar[bool] = False
    # Whether λ = 0 is a reference whose free energy is known: the result is absolute.
    absolute: ClassVar[bool] = False
    # Whether every λ is a temperature of one system: the result is a curve G(T).
    sweeps_temperature: ClassVar[bool] = False

    @property
    def linear(self) -> bool:
        """Whether H(x, λ') follows exactly from H(x, λ) and ∂H/∂λ."""
        return True

    @property
    def weighs_graph(self) -> bool:
        """Whether the model is evaluated at weights between its end states."""
        return False

    @property
    def is_defect(self) -> bool:
        """Whether the change is one defect, which no formula unit has a share in."""
        return False

    # --- input ----------------------------------------------------------------------------------

    def check(self, run: RunInput) -> None:
        """Raise InputError for an input that cannot be right on this path."""

    def check_ends(self, ends: Ends) -> None:
        """Raise InputError for what is missing, superfluous or unphysical in *ends*."""
        reject_what_is_not_used(ends, self.takes)

    def start(self, run: RunInput) -> Structure:
        """Where a run of this path must start, its own structure moved if need be."""
        return run.structure

    def digest(self, run: RunInput) -> dict[str, Any]:
        """What the digest covers beyond what it covers for every path."""
        return {"path": self.word}

    # --- Hamiltonian ----------------------------------------------------------------------------

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        """The summands of H(x, λ)."""
        raise NotImplementedError

    # --- corrections ----------------------------------------------------------------------------

    def work_factor(self, run: RunInput) -> float:
        """How often the work counts in the free energy."""
        return 1.0

    def corrections(self, run: RunInput, given: Given) -> list[Correction]:
        """The analytic terms to add to the work.  Raises AnalysisError."""
        return []

    def quantity(self, run: RunInput, given: Given) -> str:
        """What work and corrections add up to."""
        return f"Δ{letter(run, given)}, final minus initial state{in_the_work(run)}"


def letter(run: RunInput, given: Given) -> str:
    """G at constant pressure or where P V is added, F otherwise."""
    return "G" if run.constant_pressure or given.pressure is not None else "F"


def in_the_work(run: RunInput) -> str:
    """Where P V is, at constant pressure; '' otherwise."""
    return "; at constant pressure, so P V is in the work already" if run.constant_pressure else ""


def rule(beads: int) -> str:
    """How an oscillator's free energy was taken, for the source of a correction."""
    return "classical" if beads == 1 else f"{beads} beads"


_USED_BY = {
    "springs": "springs are only used by alchemy 'einstein->model': remove them",
    "tether": "tether is only used for atoms that go to void: remove it",
    "scale": "scale and alchemy 'model->scaled' go together",
    "other": "other (a model) and alchemy 'model->other' go together",
}


def reject_what_is_not_used(ends: Ends, used: str) -> None:
    for name, message in _USED_BY.items():
        if name != used and getattr(ends, name) is not None:
            raise InputError(message)
