"""What to warn of after runs at fixed λ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ...contract.run_input import RunInput
from .fixed_lambda import Window
from .mbar import FEW_SAMPLES, Mbar
from .quadrature import Quadrature
from .switching import Estimate


def window_warnings(
    inputs: Sequence[RunInput],
    windows: Sequence[Window],
    integral: Estimate | None,
    rule: Quadrature | None,
) -> Iterator[str]:
    """Of the runs themselves, and of TI over them."""
    for w in windows:
        if not w.complete:
            yield f"partial: {w.folder.name} stopped at step {w.last_step} of {w.total_steps}"
        if w.mean.n < FEW_SAMPLES:
            yield (
                f"{w.folder.name}: only {w.mean.n} independent samples of ∂H/∂λ at "
                f"λ = {w.lam:g}: its error is itself uncertain"
            )
        if w.drifts:
            yield (
                f"{w.folder.name}: the volume still drifts ({w.volume_drift:+.3g} ± "
                f"{w.volume_drift_se:.2g} Å^3 between the halves): run longer"
            )
    if len(windows) < 2:
        return
    if rule is None:
        yield "no TI: the λ are neither Gauss–Legendre nodes nor contain 0 and 1"
    elif rule.embedded is None:
        yield f"the error of the quadrature ({rule.rule}) is not estimated"
    elif rule.matters(None if integral is None else integral.se):
        off, noise = 1e3 * (rule.difference or 0.0), 1e3 * (rule.difference_se or 0.0)
        yield (
            f"the quadrature ({rule.rule}) and its embedded rule ({rule.embedded_rule}) differ by "
            f"{off:.2f} ± {noise:.2f} meV, more than the error of TI: TI may carry an error of the "
            "rule, add windows"
        )
    seed, count = Counter(run.seed for run in inputs).most_common(1)[0]
    if count > 1:
        yield f"{count} windows share the seed {seed}: they are not independent"


def mbar_warnings(multistate: Mbar, integral: Estimate | None) -> Iterator[str]:
    """Of MBAR, and of its agreement with TI over the same samples."""
    yield from multistate.warnings
    if integral is None or integral.se is None or multistate.estimate.se is None:
        return
    gap = abs(multistate.estimate.value - integral.value)
    if gap > 2.0 * max(multistate.estimate.se, integral.se):
        yield (
            f"TI and MBAR differ by {1e3 * gap:.2f} meV, more than twice their errors, although "
            "they share their samples: quadrature or overlap is at fault"
        )
