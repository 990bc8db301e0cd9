"""What a structure is made of, and whether two phases change by the same reaction."""

from __future__ import annotations

import math
from collections import Counter

from ..contract.transformation import parse_alchemy
from ..errors import InputError
from ..records import Structure, Transformation


def check_same_reaction(phases: dict[str, Structure], alchemy: str) -> None:
    """ΔΔG per formula unit compares phases of one composition, changed by the same share."""
    changes = {}
    for label, structure in phases.items():
        t = parse_alchemy(alchemy, structure.symbols)
        units = math.gcd(*counts(structure))
        changes[label] = (
            {s: structure.symbols.count(s) / units for s in set(structure.symbols)},
            Counter({k: v / units for k, v in Counter(_changes(t)).items()}),
        )
    first, second = changes.values()
    if first != second:
        raise InputError(
            f"transmute: {' and '.join(phases)} differ in composition, or '{alchemy}' changes "
            "another share of their atoms: ΔΔG per formula unit would compare different reactions"
        )


def _changes(t: Transformation) -> list[tuple[str, str | None]]:
    return [(t.initial[i], t.final[i]) for i in t.changed]


def formula_units(structure: Structure) -> int:
    return math.gcd(*counts(structure))


def reduced_formula(structure: Structure) -> str:
    units = formula_units(structure)
    counts = Counter(structure.symbols)
    return "".join(f"{s}{n // units if n > units else ''}" for s, n in sorted(counts.items()))


def counts(structure: Structure) -> list[int]:
    return [structure.symbols.count(s) for s in set(structure.symbols)]
