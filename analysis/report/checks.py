"""What each run printed against what was asked for, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..estimators.judge import Mean, RunCheck

SHOWN = 8  # runs; of more, the range
HEAD = ["run", "first law (meV)", "drift (kT/atom/ps)", "T (K)", "P (bar)", "displacement"]


def check_rows(checks: Sequence[RunCheck]) -> list[list[str]]:
    """One row for each of a few runs, or from the lowest to the highest value of many."""
    columns: list[Callable[[RunCheck], float | None]] = [
        lambda c: c.largest_mismatch,
        lambda c: c.drift,
        lambda c: None if c.temperature is None else c.temperature.value,
        lambda c: None if c.pressure is None else c.pressure.value,
        lambda c: None if c.displacement is None else c.displacement.rms,
    ]
    forms: list[Callable[[float], str]] = [
        lambda x: f"{1e3 * x:.2g}",
        lambda x: f"{x:.1g}",
        lambda x: f"{x:.4g}",
        lambda x: f"{x:.4g}",
        lambda x: f"{x:.2g}",
    ]
    if len(checks) <= SHOWN:
        rows = []
        for c in checks:
            values = [column(c) for column in columns]
            cells = ["–" if x is None else form(x) for x, form in zip(values, forms, strict=True)]
            cells[2] += _error(c.temperature)
            cells[3] += _error(c.pressure)
            rows.append([c.name, *cells])
        return rows
    row = [f"{checks[0].name} … {checks[-1].name}"]
    for column, form in zip(columns, forms, strict=True):
        known = [x for c in checks if (x := column(c)) is not None]
        row.append(f"{form(min(known))} … {form(max(known))}" if known else "–")
    return [row]


def heading(checks: Sequence[RunCheck]) -> str:
    """What the columns are, and what temperature and pressure should be."""
    found = []
    for name, unit in (("temperature", "K"), ("pressure", "bar")):
        means = [m for c in checks if (m := getattr(c, name)) is not None]
        if means:
            found.append(f"{means[0].target:g} {unit}")
    asked = f"; asked for: {', '.join(found)}" if found else ""
    return (
        "The runs themselves; first law: conserved minus work, worst switch; displacement: of the "
        f"distance between neighbours{asked}"
    )


def _error(mean: Mean | None) -> str:
    if mean is None or mean.se is None:
        return ""
    return f" ± {mean.se:.0f}" if mean.se >= 1.0 else f" ± {mean.se:.1g}"
