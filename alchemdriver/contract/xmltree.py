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


# i-PI's units of what we read, in atomic units, and its prefixes; ours are K, bar and fs.
_PLAIN = {"": 1.0, "automatic": 1.0, "atomic_unit": 1.0}
_UNITS = {
    "temperature": {"kelvin": units.KELVIN, "ase": 3.1668105143562215e-06, **_PLAIN},
    "pressure": {
        "bar": units.BAR,
        "pascal": 3.398827377e-14,
        "atmosphere": 3.44386184e-09,
        "ev/ang3": 0.0054456877,
        "ase": 0.005445687737278212,
        **_PLAIN,
    },
    "time": {"second": 4.1341373e16, "ase": 420.87608747719025, **_PLAIN},
}
_OURS = {"temperature": units.KELVIN, "pressure": units.BAR, "time": units.FEMTOSECOND}
# fmt: off
_PREFIXES = {
    "": 1.0, "yotta": 1e24, "zetta": 1e21, "exa": 1e18, "peta": 1e15, "tera": 1e12, "giga": 1e9,
    "mega": 1e6, "kilo": 1e3, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12,
    "femto": 1e-15, "atto": 1e-18, "zepto": 1e-21, "yocto": 1e-24,
}
# fmt: on


def _unit(name: str, dimension: str) -> float | None:
    """One *name*, such as 'femtosecond', in our unit of *dimension*; None if i-PI has none such."""
    for prefix, power in _PREFIXES.items():
        base = name.strip()[len(prefix) :].lower()
        if name.strip().startswith(prefix) and base in _UNITS[dimension]:
            return _UNITS[dimension][base] * power / _OURS[dimension]
    return None


def quantity(node: Any, dimension: str, name: str) -> float | None:
    if node is None:
        return None
    text = text_of(node)
    unit = node.get("@units", "") if isinstance(node, dict) else ""
    factor = _unit(unit, dimension)
    if factor is None:
        table = _UNITS[dimension]
        raise InputError(
            f"<{name} units='{unit}'>: expected one of {', '.join(u for u in table if u)}, with "
            f"or without a prefix such as femto{did_you_mean(unit, table)}"
        )
    try:
        value = float(text) * factor
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
