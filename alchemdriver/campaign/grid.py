"""From a plan to the points of its grid: lists multiply, single points are left out or changed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract.shelf import is_file
from ..errors import InputError, did_you_mean
from ..prepare.options import Option
from ..prepare.protocols import Protocol
from .plan import Choice, Compositions, Plan, Value

__all__ = ["Point", "composition_names", "points", "safe"]

# axes with a list of their own in the plan, by the option that they give
LISTS = {
    "supercell": "supercells",
    "alchemy": "alchemies",
    "model": "models",
    "temperature": "temperatures",
    "pressure": "pressures",
}
_OWN = {**LISTS, "structure": "structures", "seed": "seed", "replicas": "replicas"}


@dataclass(frozen=True)
class Point:
    """One case that the plan asks for."""

    name: str
    axes: dict[str, Value]
    options: dict[str, Value]  # of the protocol, its axes included


def points(plan: Plan) -> list[Point]:
    """The grid without what is excluded, overrides applied.  Raises InputError."""
    axes = _axes(plan)
    for n, rule in enumerate(plan.exclude):
        _check_rule(rule, axes, f"exclude[{n}]")
    for n, override in enumerate(plan.override):
        _check_rule(override.where, axes, f"override[{n}].where")
        for name, value in override.set.items():
            key = f"override[{n}].set.{name}"
            if name in axes or name in _OWN:
                raise InputError(
                    f"{key}: it is in the names of cases: list it in the plan, and leave single "
                    "cases out with [[exclude]]"
                )
            _option(plan.kind, name, value, key)
    fixed = {k: v for k, v in plan.options.items() if not isinstance(v, tuple)}
    needed = {o.name for o in plan.kind.needs} - {"model", "alchemy", "pressure", "temperature"}
    for name in sorted(needed - set(plan.options)):
        option = next(o for o in plan.kind.needs if o.name == name)
        raise InputError(
            f"options.{name}: {plan.protocol} needs {option.wanted}, e.g. {name} = {option.example}"
        )
    found: list[Point] = []
    names: dict[str, int] = {}
    listed = [name for name, v in plan.options.items() if isinstance(v, tuple)]
    for values in itertools.product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        if any(_matches(at, rule) for rule in plan.exclude):
            continue
        own = {k: v for k, v in at.items() if k not in ("structure", "composition")}
        options = {**fixed, **own}
        for override in plan.override:
            if _matches(at, override.where):
                options |= override.set
        name = _name(at, listed)
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:  # what differs in letters that a folder cannot have
            name = f"{name}-{names[name]}"
        found.append(Point(name, at, options))
    if not found:
        raise InputError("nothing is left to run: every case is excluded")
    return found


def _axes(plan: Plan) -> dict[str, tuple[Value, ...]]:
    """Every axis with its values, those of a single value included."""
    kind = plan.kind
    axes: dict[str, tuple[Value, ...]] = {"structure": tuple(plan.named_structures())}
    if plan.compositions is not None:
        axes["composition"] = tuple(composition_names(plan.compositions))
    for name, key in LISTS.items():
        given: tuple[Value, ...] = getattr(plan, key)
        if not kind.has(name):
            if given:
                raise InputError(f"{key}: {kind.foreign(name) or f'{kind.name} takes none'}")
            continue
        if not given:
            option = next(o for o in kind.options if o.name == name)
            raise InputError(f"{key}: {kind.name} needs {option.wanted}, e.g. {option.example}")
        axes[name] = given
    for name, choice in plan.options.items():
        if name in _OWN:
            raise InputError(
                f"options.{name}: expected '{_OWN[name]}' at the top of the plan instead"
            )
        for value in choice if isinstance(choice, tuple) else (choice,):
            _option(kind, name, value, f"options.{name}")
        if isinstance(choice, tuple):
            axes[name] = choice
    for name, given in axes.items():
        twice = next((v for v in given if given.count(v) > 1), None)
        if twice is not None or not given:
            what = "no value" if twice is None else f"{twice} twice"
            raise InputError(f"{_OWN.get(name, f'options.{name}')}: expected a list, got {what}")
    return axes


def _option(kind: Protocol, name: str, value: Value, at: str) -> Option:
    """The option *name* of the protocol; InputError if there is none, or not for *value*."""
    for option in kind.options:
        if option.name != name:
            continue
        right = {
            int: isinstance(value, int),
            float: isinstance(value, (int, float)),
            Path: isinstance(value, str),
            str: True,
        }[option.kind]
        if not right:
            words = {int: "a whole number", float: "a number", Path: "a file's name"}
            raise InputError(f"{at}: expected {words[option.kind]}, got {value!r}")
        return option
    known = [o.name for o in kind.options if o.name not in _OWN]
    if (elsewhere := kind.foreign(name)) is not None:
        raise InputError(f"{at}: {elsewhere}")
    raise InputError(
        f"{at}: unknown key{did_you_mean(name, known)}; {kind.name} takes {_list(known)}"
    )


def _list(words: Iterable[object]) -> str:
    return ", ".join(map(str, words))


def _check_rule(rule: Mapping[str, Choice], axes: Mapping[str, Sequence[Value]], at: str) -> None:
    """Raises InputError for a rule about what the plan does not have: it would do nothing."""
    if not rule:
        raise InputError(f"{at}: expected an axis and its value, such as temperature = 300")
    for name, choice in rule.items():
        if name not in axes:
            hint = did_you_mean(name, axes)
            raise InputError(f"{at}.{name}: unknown key{hint}; the plan has {_list(axes)}")
        for value in _several(choice):
            if value not in axes[name]:
                raise InputError(f"{at}.{name}: {value} is not among {_list(axes[name])}")


def _several(choice: Choice) -> tuple[Value, ...]:
    return choice if isinstance(choice, tuple) else (choice,)


def _matches(at: Mapping[str, Value], rule: Mapping[str, Choice]) -> bool:
    return all(at[name] in _several(choice) for name, choice in rule.items())


def composition_names(c: Compositions) -> dict[str, tuple[list[list[float]], int]]:
    """(one composition per sublattice, number of the cell) by the name of the case.

    Raises InputError for shares that do not fit the sublattices.
    """
    found = {}
    texts = [text.split()[0] if text.split() else text for text in c.sublattices]
    labels = [[re.sub(r"\[.*", "", word) for word in text.split("->")] for text in texts]
    for n, shares in enumerate(c.shares):
        each: list[Any] = list(shares) if len(labels) > 1 else [shares]
        if not all(isinstance(s, tuple) and all(isinstance(x, float) for x in s) for s in each):
            raise InputError(f"compositions.shares[{n}]: expected a list of numbers per sublattice")
        counts = [len(names) for names in labels]
        if [len(s) for s in each] != counts:
            wanted = " and ".join(f"{k} shares" for k in counts)
            raise InputError(f"compositions.shares[{n}]: expected {wanted}, as {c.sublattices} say")
        name = "-".join(
            f"{label}{x:g}"
            for names, s in zip(labels, each, strict=True)
            for label, x in zip(names, s, strict=True)
        )
        for sample in range(c.samples):
            key = name if c.samples == 1 else f"{name}-cell{sample + 1}"
            if key in found:
                raise InputError(f"compositions.shares[{n}]: {name} is there twice")
            found[key] = ([list(s) for s in each], sample)
    if not found:
        raise InputError("compositions.shares: expected at least one composition")
    return found


def _name(at: Mapping[str, Value], listed: Sequence[str]) -> str:
    """A folder's name that tells every axis, so that a longer plan gives the same one."""
    units = {"temperature": "K", "pressure": "bar"}
    parts = []
    for axis, value in at.items():
        if axis == "supercell" and value == "1x1x1":
            continue
        text = Path(str(value)).stem if axis == "model" and is_file(str(value)) else f"{value}"
        if isinstance(value, (int, float)):
            text = f"{value:.10g}".replace("-", "minus")
        parts.append((axis if axis in listed else "") + safe(text) + units.get(axis, ""))
    return "_".join(parts)


def safe(text: str) -> str:
    """*text* as part of a folder's name."""
    text = text.replace("->", "-to-")
    return re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9.+-]", "-", text)).strip("-.") or "x"
