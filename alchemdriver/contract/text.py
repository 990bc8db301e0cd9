"""Text of options: numbers, supercells, times, sites.  One place for every command."""

from __future__ import annotations

import re

from ..errors import InputError


def parse_numbers(text: str, name: str, most: int | None = None) -> tuple[float, ...]:
    """``100 300`` or ``100,300`` as numbers.  Raises InputError."""
    try:
        numbers = tuple(float(x) for x in text.replace(",", " ").split())
    except ValueError:
        raise InputError(f"{name}: expected numbers, got '{text}'") from None
    if not numbers or (most is not None and len(numbers) > most):
        raise InputError(f"{name}: expected {most or 'one or more'} number(s), got '{text}'")
    return numbers


def parse_supercell(text: str) -> tuple[int, int, int]:
    """``2x2x2`` as three numbers.  Raises InputError."""
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text.lower())
    if not match:
        raise InputError(f"supercell: expected three positive numbers such as 2x2x2, got '{text}'")
    return tuple(int(n) for n in match.groups())


def parse_wall_time(text: str) -> float:
    """Seconds in ``[[days-]hours:]minutes:seconds``.  Raises InputError."""
    match = re.fullmatch(r"(?:(?:(\d{1,4})-)?(\d{1,4}):)?(\d{1,4}):(\d{1,2})", text.strip())
    days, hours, minutes, seconds = (
        (int(part or 0) for part in match.groups()) if match else [0] * 4
    )
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total <= 0:
        raise InputError(f"wall-time: expected a time such as 23:50:00 or 2-12:00:00, got '{text}'")
    return float(total)


def parse_sites(text: str) -> list[int]:
    """``0;5`` or ``0 5`` as indices.  Raises InputError."""
    words = re.split(r"[;,\s]+", text.strip()) if text.strip() else []
    if not all(word.isdigit() and len(word) < 10 for word in words):
        raise InputError(f"site: expected indices such as '0;5', got '{text}'")
    return [int(word) for word in words]


def parse_potentials(text: str) -> dict[str, float]:
    """``I=-1.5 Cs=-2.0`` as eV per atom of each element.  Raises InputError."""
    found = {}
    for word in text.split():
        symbol, equals, value = word.partition("=")
        try:
            found[symbol] = float(value)
        except ValueError:
            equals = ""
        if not (symbol and equals) or not abs(found[symbol]) < 1e6:
            raise InputError(f"chemical potential: expected ELEMENT=eV, got '{word}'")
    return found
