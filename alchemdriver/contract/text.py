"""Text of options: lists, numbers, supercells, times, sites.  One place for every command."""

from __future__ import annotations

import re

from ..errors import InputError


def parse_list(text: str) -> list[str]:
    """``a,b`` as words; none of an empty text."""
    return [word for word in (part.strip() for part in text.split(",")) if word]


def parse_numbers(
    text: str, name: str, most: int | None = None, such_as: str = ""
) -> tuple[float, ...]:
    """``100 300`` or ``100,300`` as numbers.  Raises InputError; *such_as*: an example for it."""
    try:
        numbers = tuple(float(x) for x in text.replace(",", " ").split())
    except ValueError:
        example = f" such as {such_as}" if such_as else ""
        raise InputError(f"{name}: expected numbers{example}, got '{text}'") from None
    if not numbers or (most is not None and len(numbers) > most):
        raise InputError(f"{name}: expected {most or 'one or more'} number(s), got '{text}'")
    return numbers


def parse_counts(text: str, name: str) -> list[int]:
    """``1,2`` as positive whole numbers.  Raises InputError."""
    words = parse_list(text)
    if not words or not all(re.fullmatch("0*[1-9][0-9]{0,8}", word) for word in words):
        raise InputError(f"{name}: expected whole numbers such as 1,2, got '{text}'")
    return [int(word) for word in words]


def parse_assignment(text: str) -> tuple[str, float | None]:
    """``a=3.19`` as a name and a number; '' and None for what is not there."""
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), None


def parse_supercell(text: str) -> tuple[int, int, int]:
    """``2x2x2`` as three numbers.  Raises InputError."""
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text.lower())
    if not match:
        raise InputError(f"supercell: expected three positive numbers such as 2x2x2, got '{text}'")
    a, b, c = (int(n) for n in match.groups())
    return a, b, c


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


_ENERGIES = {"mev": 1e-3, "ev": 1.0, "kj/mol": 1.0364269656e-2, "kcal/mol": 4.3364104241e-2}  # eV
_TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}  # s


def _with_unit(text: str) -> tuple[float, str]:
    match = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z/]+)", text.strip())
    try:
        return (float(match[1]), match[2]) if match else (0.0, "")
    except ValueError:
        return 0.0, ""


def parse_energy(text: str, name: str) -> float:
    """``2meV``, ``0.1 kJ/mol`` as eV.  Raises InputError."""
    number, unit = _with_unit(text)
    value = number * _ENERGIES.get(unit.lower(), 0.0)
    if not 0.0 < value < 1e6:
        raise InputError(
            f"{name}: expected an energy such as 2meV, 0.002eV or 0.2kJ/mol, got '{text}'"
        )
    return value


def parse_budget(text: str) -> tuple[float | None, int | None]:
    """``12h``, ``90min``, ``2d`` as seconds, or ``50000evaluations`` as their number; one of both.

    Raises InputError.
    """
    number, unit = _with_unit(text)
    if unit.lower() in ("evaluations", "evaluation") and 1 <= number < 1e15 and number % 1 == 0:
        return None, int(number)
    seconds = number * _TIMES.get(unit.lower(), 0.0)
    if not 0.0 < seconds < 1e9:
        raise InputError(
            f"budget: expected a time such as 12h, 90min or 2d, or 50000evaluations, got '{text}'"
        )
    return seconds, None


def parse_sites(text: str) -> list[int]:
    """``0;5`` or ``0 5`` as indices.  Raises InputError."""
    words = re.split(r"[;,\s]+", text.strip()) if text.strip() else []
    if not all(re.fullmatch("[0-9]{1,9}", word) for word in words):
        raise InputError(f"site: expected indices such as '0;5', got '{text}'")
    return [int(word) for word in words]


def parse_potentials(text: str) -> dict[str, float]:
    """``I=-1.5 Cs=-2.0`` as eV per atom of each element.  Raises InputError."""
    found = {}
    for word in text.split():
        symbol, value = parse_assignment(word)
        if not symbol or value is None or not abs(value) < 1e6:
            raise InputError(f"chemical potential: expected ELEMENT=eV, got '{word}'")
        found[symbol] = value
    return found
