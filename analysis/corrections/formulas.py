"""What belongs to no one path: configurational entropy, finite size, formula units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import gcd

import numpy as np

from ...errors import AnalysisError
from ...paths.formulas import positive
from ...records import Transformation
from ...units import kT


def configurational(temperature: float, configurations: int, initial: int = 1) -> float:
    """kT ln(n/n_initial), eV: by how much symmetry-equivalent labelled configurations of the final
    state lower G, less what those of the initial state do.

    Reported beside a free energy, never inside: sites there are labelled.
    """
    final, before = positive("configurations", [configurations, initial])
    return float(kT(temperature) * np.log(final / before))


def infinite_size(
    sizes: Sequence[int], values: Sequence[float], errors: Sequence[float]
) -> tuple[float, float]:
    """Limit of a per-atom or per-defect free energy and its SE, from a weighted fit in 1/N.

    sizes: atoms N; values and their SEs in eV.  At least two different sizes; the SE is propagated
    from *errors* and says nothing about whether 1/N is the right law.
    """
    x = 1.0 / positive("sizes", sizes)
    y, weights = np.asarray(values, dtype=float), positive("errors", errors) ** -2.0
    if len(set(x)) < 2 or not len(x) == len(y) == len(weights):
        raise AnalysisError(
            f"a fit in 1/N needs two sizes, and a value and an error for each, got {len(set(x))} "
            f"sizes, {len(y)} values, {len(weights)} errors"
        )
    design = np.stack([np.ones_like(x), x], axis=1)  # [k, (intercept, slope)]
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    intercept = covariance[0] @ (design.T @ (weights * y))
    return float(intercept), float(np.sqrt(covariance[0, 0]))


def formula(symbols: Sequence[str]) -> str:
    """Such as ``Cs8Pb8I24``, in the order in which the elements first appear."""
    counts = Counter(symbols)
    return "".join(f"{s}{n if n > 1 else ''}" for s, n in counts.items())


def substituted(transformation: Transformation) -> int | None:
    """Atoms that change, where the ends have no formula unit in common; None where they have."""
    ends = transformation.initial, [s for s in transformation.final if s is not None]
    if not transformation.changed or transformation.voids:
        return None
    same = formula_units(ends[0]) == formula_units(ends[1])
    return None if same else len(transformation.changed)


def formula_units(symbols: Sequence[str]) -> int:
    """Number of formula units in a composition: the greatest common divisor of its counts."""
    counts = [list(symbols).count(s) for s in set(symbols)]
    return gcd(*counts)
