"""i-PI's XML as a tree of dicts (xmltodict's), and what stands in its elements, with units.

Whatever is not what it should be raises InputError with the name of the element.
"""

from __future__ import annotations

import re
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np
import xmltodict

from .. import units
from ..errors import InputError, did_you_mean


def parse_xml(text: str, where: str = "input") -> dict[str, Any]:
    """The ``<simulation>`` element as xmltodict sees it (comments kept)."""
    try:
        tree = xmltodict.parse(text, process_comments=True)
    except (ExpatError, ValueError) as err:  # ValueError: entities, which nobody needs here
        raise InputError(f"{where} is not well-formed XML: {err}") from None
    root = tree.get("simulation")
    if not isinstance(root, dict):
        found = next(tag for tag in tree if tag != "#comment")
        empty = " without content" if found == "simulation" else ""
        raise InputError(f"{where}: expected <simulation> as the root, got <{found}>{empty}")
    return root


def many(node: Any) -> list[Any]:
    """Children of one tag as a list, whether there are none, one or several."""
    if node is None:
        return []
    return node if isinstance(node, list) else [node]


def text_of(node: Any, default: str = "") -> str:
    """Text of an element, with or without attributes."""
    if isinstance(node, list):
        raise InputError(f"an element that must stand once stands {len(node)} times")
    value = node.get("#text") if isinstance(node, dict) else node
    return default if value is None else str(value).strip()


def child(node: Any, *tags: str) -> Any:
    """Descend by tag names; None where a tag is absent, InputError where one above is repeated."""
    above = None
    for tag in tags:
        if isinstance(node, list):
            raise InputError(f"<{above}> must stand once, found {len(node)}")
        if not isinstance(node, dict):
            return None
        above = tag
        node = node.get(tag)
    return node


# i-PI's unit names for what we read, as multiples of our units (K, bar, fs).
_UNITS = {
    "temperature": {"kelvin": 1.0, "": 1.0 / units.KELVIN, "atomic_unit": 1.0 / units.KELVIN},
    "pressure": {
        "bar": 1.0,
        "pascal": 1e-5,
        "megapascal": 10.0,
        "gigapascal": 1e4,
        "atmosphere": 3.44386184e-09 / units.BAR,
        "": 1.0 / units.BAR,
        "atomic_unit": 1.0 / units.BAR,
    },
    "time": {
        "femtosecond": 1.0,
        "picosecond": 1e3,
        "": 1.0 / units.FEMTOSECOND,
        "atomic_unit": 1.0 / units.FEMTOSECOND,
    },
}


def quantity(node: Any, dimension: str, name: str) -> float | None:
    if node is None:
        return None
    text = text_of(node)
    unit = node.get("@units", "") if isinstance(node, dict) else ""
    table = _UNITS[dimension]
    if unit not in table:
        known = ", ".join(u for u in table if u)
        raise InputError(
            f"<{name} units='{unit}'>: expected one of {known}{did_you_mean(unit, table)}"
        )
    try:
        value = float(text) * table[unit]
    except ValueError:
        raise InputError(f"<{name}>: expected a number, got '{text}'") from None
    if not np.isfinite(value):
        raise InputError(f"<{name}>: expected a finite number, got '{text}'")
    return value


def positive(node: Any, dimension: str, name: str) -> float | None:
    value = quantity(node, dimension, name)
    if value is not None and not 0 < value < np.inf:
        raise InputError(f"<{name}>: expected a positive number, got '{text_of(node)}'")
    return value


def whole(node: Any, name: str, default: int, least: int | None = None) -> int:
    text = text_of(node, str(default))
    try:
        value = int(text)
    except ValueError:
        raise InputError(f"{name}: expected a whole number, got '{text}'") from None
    if least is not None and value < least:
        raise InputError(f"{name}: expected at least {least}, got {value}")
    return value


def numbers(node: Any) -> list[float]:
    """The numbers of an i-PI list such as ``[1, 4]``; empty if there is none."""
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", text_of(node))]
