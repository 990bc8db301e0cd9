"""What to warn of after runs at fixed λ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ...contract.run_input import RunInput
from .estimate import Estimate
from .fixed_lambda import Window
from .mbar import FEW_SAMPLES, Mbar
from .quadrature import Quadrature


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
        if w.mean.se is None:
            yield f"{w.folder.name}, λ = {w.lam:g}: error of ⟨∂H/∂λ⟩ {w.mean.se_kind}"
        elif w.mean.n < FEW_SAMPLES:
            yield (
                f"{w.folder.name}: only {w.mean.n} independent samples of ∂H/∂λ at "
                f"λ = {w.lam:g}: its error is itself uncertain"
            )
        if w.relaxes:
            moved = "not known"
            if w.gradient_drift is not None and w.gradient_drift_se is not None:
                moved = f"{1e3 * w.gradient_drift:+.3g} ± {1e3 * w.gradient_drift_se:.2g} meV"
            yield (
                f"{w.folder.name}, λ = {w.lam:g}: ∂H/∂λ may still relax ({w.equilibration} of "
                f"{len(w.gradient)} rows left out at the start; the halves of the rest differ by "
                f"{moved}): run longer"
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
