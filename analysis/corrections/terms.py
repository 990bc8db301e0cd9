"""What is added to the work of one run: its path's corrections, and those that a user brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...contract.run_input import RunInput
from ...errors import AnalysisError
from ...paths import Given
from ...paths.formulas import Correction

__all__ = ["Sum", "terms_of"]


@dataclass(frozen=True)
class Sum:
    """How work and corrections add up."""

    factor: float  # how often the work counts: T/T0 under reversible scaling, else 1
    terms: tuple[Correction, ...]
    quantity: str  # what the sum is


def terms_of(run: RunInput, given: Given, extra: Sequence[Correction]) -> Sum:
    """All corrections of *run*; one of *extra* replaces the path's own of the same name.

    Raises AnalysisError for a pressure where the work holds P V already, or where eq. 20 does not
    apply, and for what the path refuses.
    """
    path = run.lambda_path
    if given.pressure is not None:
        if run.constant_pressure:
            raise AnalysisError(
                "the run is at constant pressure, so the work already gives a Gibbs energy: "
                "do not add P V"
            )
        if not path.absolute:
            raise AnalysisError("P V belongs to einstein->model at constant volume (eq. 20)")
    for term in extra:
        if term.unit != "eV":
            raise AnalysisError(f"term '{term.name}': expected eV, got {term.unit}")
    replaced = {term.name for term in extra}
    own = [term for term in path.corrections(run, given) if term.name not in replaced]
    return Sum(path.work_factor(run), (*own, *extra), path.quantity(run, given))
