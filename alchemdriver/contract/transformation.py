"""The ``alchemy`` key: text such as ``Pb[0-3]->Sn Cs[5]->Rb`` to a Transformation and back.

Grammar, terms separated by spaces (i-PI splits its parameter dictionary on commas, so there are
none):

    term    ELEMENT -> ELEMENT          every atom of that element
            ELEMENT[SET] -> ELEMENT     those atoms; they must be of that element
            ELEMENT[SET] -> void        those atoms are removed and tethered
            WORD                        a path that stands alone: einstein->model (Frenkel–Ladd),
                                        model->scaled (reversible scaling), none (plain dynamics)
    SET     ranges a-b (both included) and single indices, separated by ';'

Indices count within the whole structure, from 0.
"""

from __future__ import annotations

import re

from ase.data import atomic_numbers, chemical_symbols

from ..errors import InputError, did_you_mean
from ..paths import ALONE
from ..records import Transformation

_TERM = re.compile(r"^(?P<a>[A-Za-z]+)(?:\[(?P<set>[^\]]*)\])?->(?P<b>[A-Za-z]+)$")


def element(symbol: str, where: str) -> str:
    """*symbol* if it is a chemical element; InputError with a suggestion otherwise."""
    if symbol not in atomic_numbers or symbol == "X":
        near = did_you_mean(symbol.capitalize(), [*chemical_symbols[1:], "void"])
        raise InputError(f"{where}: '{symbol}' is not an element{near}")
    return symbol


def parse_set(text: str, natoms: int, where: str) -> list[int]:
    """Atom indices of ``0-3;7``; InputError if malformed, out of range or repeated."""
    indices: list[int] = []
    for part in text.split(";"):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise InputError(f"{where}: expected indices such as 0-3;7, got '{text}'")
        # 20 digits are out of range already, and Python refuses to read some thousand of them
        first, last = (int(x.lstrip("0")[:20] or "0") for x in (match[1], match[2] or match[1]))
        if last < first or last >= natoms:
            raise InputError(
                f"{where}: '{part}' is out of range, the structure has atoms 0 to {natoms - 1}"
            )
        indices.extend(range(first, last + 1))
    if len(set(indices)) != len(indices):
        raise InputError(f"{where}: an atom is named twice in '{text}'")
    return indices


def parse_alchemy(text: str, symbols: tuple[str, ...]) -> Transformation:
    """The transformation that *text* describes for a structure of *symbols* (N of them).

    Raises InputError for a malformed term, an unknown element, an index out of range, a term that
    matches no atom, and an atom of another element or one changed twice.
    """
    # "Pb -> Sn" and "Pb->Sn" are the same term
    terms = re.sub(r"\s*->\s*", "->", text.strip()).split()
    if not terms:
        raise InputError("alchemy is empty: expected terms such as Pb->Sn or Fe[12]->void")
    for alone in ALONE:
        if alone in terms:
            if len(terms) > 1:
                raise InputError(f"alchemy '{text}': {alone} cannot be combined with others")
            return Transformation(symbols, symbols, alone)
    final: list[str | None] = list(symbols)
    touched: set[int] = set()
    for term in terms:
        match = _TERM.match(term)
        where = f"alchemy term '{term}'"
        if not match:
            raise InputError(
                f"{where}: expected INITIAL->FINAL, e.g. Pb->Sn, Pb[0-3]->Sn, Fe[5]->void"
            )
        a = element(match["a"], where)
        b = None if match["b"] == "void" else element(match["b"], where)
        if match["set"] is None:
            if b is None:
                raise InputError(f"{where}: name the atoms to remove, e.g. {a}[12]->void")
            indices = [i for i, s in enumerate(symbols) if s == a]
            if not indices:
                known = ", ".join(sorted(set(symbols)))
                raise InputError(f"{where}: the structure has no {a}, only {known}")
        else:
            indices = parse_set(match["set"], len(symbols), where)
        for i in indices:
            if symbols[i] != a:
                raise InputError(f"{where}: atom {i} is {symbols[i]}, not {a}")
            if i in touched:
                raise InputError(f"{where}: atom {i} is changed by two terms")
        if a == b:
            raise InputError(f"{where}: initial and final element are the same")
        touched.update(indices)
        for i in indices:
            final[i] = b
    return Transformation(initial=symbols, final=tuple(final))
