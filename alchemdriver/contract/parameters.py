"""The keys of ``<parameters>``, and what else decides a run: one table that everybody reads.

For each key it says what may stand there, what it means, whether it is part of the digest, whether
a checkpoint must have been written with the same value, whether replicas must agree on it, and what
``result.json`` calls it.  Reading, digest, checks of checkpoints and replicas, conditions in
results, help texts and the table in the docs are made from it.

**A later key** must leave the digest as it is where it is absent or at its default, or it orphans
every checkpoint and every client that is there: its ``digest`` returns nothing then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, did_you_mean
from ..paths import ALONE, INTERPOLATIONS
from ..paths.einstein import EINSTEIN
from . import shelf

if TYPE_CHECKING:
    from .run_input import RunInput

__all__ = [
    "CONDITIONS",
    "KEYS",
    "Key",
    "Parameters",
    "check_parameters",
    "markdown_table",
    "split_parameters",
]


# --- what may stand there -----------------------------------------------------------------------


def _text(key: str, text: str) -> str:
    return text


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"parameter '{key}': expected a whole number, got '{text}'") from None


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"parameter '{key}': expected a number, got '{text}'") from None
    if not np.isfinite(value):
        raise InputError(f"parameter '{key}': expected a finite number, got '{text}'")
    return value


def _share(key: str, text: str) -> float:
    value = _number(key, text)
    if not 0.0 <= value <= 1.0:
        raise InputError(f"parameter '{key}': expected a number in [0, 1], got {value:g}")
    return value


def _multiplicity(key: str, text: str) -> float:
    value = _number(key, text)
    if value < 1 or value != int(value):
        raise InputError(
            f"parameter '{key}': expected a multiplicity 2S + 1, a whole number from 1, got "
            f"{value:g}"
        )
    return value


def _stiffness(key: str, text: str) -> float:
    value = _number(key, text)
    if value <= 0:
        raise InputError(f"parameter '{key}': expected a positive eV/Å^2, got {value:g}")
    return value


def _ratio(key: str, text: str) -> float:
    value = _number(key, text)
    if value <= 0 or value == 1:
        raise InputError(
            f"parameter '{key}': expected a positive number other than 1 (T0/T), got {value:g}"
        )
    return value


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def read(key: str, text: str) -> str:
        if text not in allowed:
            raise InputError(
                f"parameter '{key}': expected {' or '.join(allowed)}, got '{text}'"
                f"{did_you_mean(text, allowed)}"
            )
        return text

    return read


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One thing that decides a run."""

    name: str  # in <parameters>, or what messages call it
    about: str  # one line of documentation
    example: str = ""
    unit: str = ""
    read: Callable[[str, str], Any] = _text  # (name, text) → value, or InputError
    default: Any = None  # None: absent
    field: str = ""  # of Parameters or RunInput; '' is the name
    # (run, sha256 of the model) → what of it the digest covers; None: nothing
    digest: Callable[[RunInput, str], dict[str, Any]] | None = None
    resume: bool = False  # a checkpoint must have the same
    replicas: bool = False  # runs that are analysed together must have the same
    compared: Callable[[RunInput], Any] | None = None  # by replicas, where it is not the value
    result: str = ""  # name among the conditions of result.json; '' is not there
    reported: Callable[[RunInput], Any] | None = None  # there, where it is not the value

    @property
    def attribute(self) -> str:
        return self.field or self.name

    def of(self, run: RunInput) -> Any:
        """Its value in *run*."""
        return getattr(run.parameters if self.name in KEYS else run, self.attribute)

    def seen_by_replicas(self, run: RunInput) -> Any:
        return self.of(run) if self.compared is None else self.compared(run)

    def seen_in_results(self, run: RunInput) -> Any:
        return self.of(run) if self.reported is None else self.reported(run)


def _masses_in_digest(run: RunInput, model: str) -> dict[str, Any]:
    return {
        "initial_masses": [repr(float(m)) for m in run.initial_masses],
        "final_masses": [repr(float(m)) for m in run.final_masses],
    }


def _elements_in_digest(run: RunInput, model: str) -> dict[str, Any]:
    # The first digests knew this path by a flag; later paths say their own word in Path.digest.
    t = run.transformation
    return {"initial": t.initial, "final": t.final, "einstein": t.word == EINSTEIN}


def _springs_in_digest(run: RunInput, model: str) -> dict[str, Any]:
    name = run.parameters.springs
    if name is None:
        return {"springs": None}
    return {"springs": hashlib.sha256((run.folder / name).read_bytes()).hexdigest()}


def _other_in_digest(run: RunInput, model: str) -> dict[str, Any]:
    name = run.parameters.other
    return {} if name is None else {"other": shelf.model_digest(name, run.folder)}


def _where_given(name: str) -> Callable[[RunInput, str], dict[str, Any]]:
    def covered(run: RunInput, model: str) -> dict[str, Any]:
        value = getattr(run.parameters, name)
        return {} if value is None else {name: repr(value)}

    return covered


def _masses_as_run(run: RunInput) -> str:
    return "interpolate" if run.interpolates_masses else "fixed"


_WORDS = ", ".join(f"'{word}'" for word in ALONE)

KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key(
            "model",
            "embedded name, foundation name, or path relative to the XML",
            "`demo`, `mace-mp-0-small`, `mine.model`",
            digest=lambda run, model: {"model": model},
            resume=True,
            replicas=True,
        ),
        Key(
            "head",
            "head of a multi-head MACE model; default: the only one, or 'Default'",
            "`omat_pbe`",
            digest=_where_given("head"),
            resume=True,
            replicas=True,
            result="head",
        ),
        Key(
            "charge",
            "total charge of the cell, for models that take one; default: what the model assumes",
            "`-1`",
            "e",
            _number,
            digest=_where_given("charge"),
            resume=True,
            replicas=True,
            result="charge",
        ),
        Key(
            "spin",
            "spin multiplicity 2S + 1 of the cell, for models that take one; default: the model's",
            "`2`",
            read=_multiplicity,
            digest=_where_given("spin"),
            resume=True,
            replicas=True,
            result="spin",
        ),
        Key(
            "alchemy",
            f"'Pb->Sn', 'Fe[12]->void' with indices from 0, or alone {_WORDS}",
            "`Pb->Sn`, `Pb[0-3;7]->Sn Cs[5]->Rb`, `Fe[124]->void`, `einstein->model`",
            digest=_elements_in_digest,
            resume=True,
            replicas=True,
            compared=lambda run: run.transformation,
            result="alchemy",
        ),
        Key(
            "other",
            "the model at λ = 1 of 'model->other', named as 'model' is",
            "`chgnet-0.3.0`",
            digest=_other_in_digest,
            resume=True,
            replicas=True,
            result="other",
        ),
        Key(
            "springs",
            "extxyz file with positions and spring_constant (eV/Å^2): the Einstein reference",
            "`einstein.extxyz`",
            digest=_springs_in_digest,
            resume=True,
            replicas=True,
        ),
        Key(
            "tether",
            "spring constant of atoms going to void; mandatory for them",
            "`4.2`",
            "eV/Å^2",
            _stiffness,
            digest=lambda run, model: {"tether": run.parameters.tether},
            resume=True,
            replicas=True,
        ),
        Key(
            "scale",
            "final scale T0/T of 'model->scaled', e.g. 0.25 from 300 K to 1200 K",
            "`0.25`",
            read=_ratio,
            digest=_where_given("scale"),
            resume=True,
            replicas=True,
        ),
        Key(
            "lambda",
            "fixed λ, or the initial value under a schedule",
            "`0.5`",
            read=_share,
            default=0.0,
            field="lam",
            resume=True,
        ),
        Key(
            "schedule",
            "λ(τ) of a switch: poly9 (eq. 17), linear, or a table file (tau, lambda)",
            "`poly9`, `linear`, `table.txt`",
            resume=True,
            replicas=True,
            result="schedule",
        ),
        Key(
            "equilibrate",
            "steps of each hold",
            "`2000`",
            "steps",
            _whole,
            resume=True,
            replicas=True,
            result="equilibrate",
        ),
        Key(
            "switch",
            "steps of each switch",
            "`3000`",
            "steps",
            _whole,
            resume=True,
            replicas=True,
            result="switch",
        ),
        # a run may be prolonged
        Key("cycles", "forward/backward pairs", "`4`", read=_whole, result="cycles"),
        Key(
            "masses",
            "interpolate or fixed; default: interpolate for one bead, fixed for several",
            "`interpolate`, `fixed`",
            read=_one_of("interpolate", "fixed"),
            resume=True,
            replicas=True,
            compared=_masses_as_run,
            result="masses",
            reported=_masses_as_run,
        ),
        Key(
            "interpolation",
            "alchemical (weighted graph, eqs. 4–7) or linear (two ordinary evaluations mixed)",
            "`alchemical`, `linear`",
            read=_one_of(*INTERPOLATIONS),
            default="alchemical",
            digest=lambda run, model: {"interpolation": run.parameters.interpolation},
            resume=True,
            replicas=True,
        ),
        # a run may move to another machine
        Key(
            "dtype",
            "precision of the model: float64 or float32",
            "`float64`, `float32`",
            read=_one_of("float64", "float32"),
            default="float64",
        ),
        Key(
            "masses_file",
            "JSON with 'initial' and 'final' masses, one per atom, where not the elements' own",
            "`masses.json`",
            "u",
            digest=_masses_in_digest,
        ),
        Key(
            "mass_point",
            "place on the mass leg, 0 (initial masses) to 1 (final), ln m linear",
            "`0.1127`",
            read=_share,
            resume=True,
            replicas=True,
        ),
        # nothing about the numbers of honest clients
        Key(
            "clients",
            "whom a TCP port gives work: those that prove the run's secret, or any, stock i-PI "
            "clients and strangers included",
            "`proven`, `any`",
            read=_one_of("proven", "any"),
            default="proven",
        ),
        Key(
            "digest",
            "written by prepare and run; what both ends must agree on",
            "`sha256-…`",
            resume=True,
            replicas=True,
        ),
    )
}

# What decides a run outside of <parameters>; names as messages use them.
CONDITIONS: tuple[Key, ...] = (
    Key(
        "ensemble",
        "i-PI's <dynamics mode>",
        resume=True,
        replicas=True,
        result="ensemble",
    ),
    Key(
        "temperature",
        "of the ensemble",
        unit="K",
        resume=True,
        replicas=True,
        result="temperature",
    ),
    Key(
        "pressure",
        "of the ensemble",
        unit="bar",
        resume=True,
        replicas=True,
        result="pressure",
        reported=lambda run: run.pressure if run.constant_pressure else None,
    ),
    Key("timestep", "of <dynamics>", unit="fs", resume=True, replicas=True, result="timestep"),
    Key("beads", "of <initialize>", resume=True, replicas=True, result="beads"),
    Key(
        "fixcom",
        "whether the centre of mass is fixed, which it never is where atoms are held",
        field="fixes_centre_of_mass",
        resume=True,
        replicas=True,
    ),
    Key(
        "fixatoms",
        "coordinates that do not move, by <fixatoms> or <fixatoms_dof>",
        field="held",
        resume=True,
        replicas=True,
    ),
    Key("barostat", "what of the cell moves, by <barostat mode>", resume=True, replicas=True),
)


def markdown_table() -> str:
    """The keys of ``<parameters>`` as the docs show them."""

    def yes(value: object) -> str:
        return "yes" if value else ""

    lines = [
        "| key | example | meaning | unit | default | digest | same on resume | same in replicas |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in KEYS.values():
        default = "" if key.default is None else f"`{key.default}`"
        cells = (
            f"`{key.name}`", key.example, key.about, key.unit, default,
            yes(key.digest), yes(key.resume), yes(key.replicas),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameters:
    """The checked ``<parameters>`` dictionary; None means that the key is absent."""

    model: str
    head: str | None
    charge: float | None  # e, of the cell
    spin: float | None  # 2S + 1, of the cell
    alchemy: str
    lam: float
    schedule: str | None
    equilibrate: int | None  # steps
    switch: int | None  # steps
    cycles: int | None
    masses: str | None
    interpolation: str
    dtype: str
    other: str | None
    springs: str | None
    tether: float | None  # eV/Å^2
    scale: float | None  # s at λ = 1, of model->scaled
    digest: str | None
    masses_file: str | None
    mass_point: float | None  # 0 to 1
    clients: str  # proven or any


def split_parameters(text: str) -> dict[str, str]:
    """``{a: 1, b: 2}`` as a dictionary of strings, in i-PI's own way of splitting."""
    body = text.strip()
    if not body.isascii():
        wrong = next(c for c in body if not c.isascii())
        raise InputError(f"<parameters> must be ASCII for i-PI's socket protocol, found '{wrong}'")
    if not (body.startswith("{") and body.endswith("}")):
        raise InputError("<parameters> must be a dictionary {key: value, …}")
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in body[1:-1].split(","))):
        key, colon, value = (x.strip() for x in item.partition(":"))
        if not colon or not value:
            raise InputError(f"<parameters>: expected 'key: value', got '{item}'")
        if key in values:
            raise InputError(f"<parameters>: key '{key}' stands twice")
        values[key] = value
    return values


def check_parameters(values: Mapping[str, str]) -> Parameters:
    """Validate the dictionary.  Raises InputError, with a suggestion for misspelt keys."""
    for name in values:
        if name not in KEYS:
            raise InputError(
                f"unknown parameter '{name}'{did_you_mean(name, KEYS)}; known: {', '.join(KEYS)}"
            )
    for name in ("model", "alchemy"):
        if name not in values:
            raise InputError(f"parameter '{name}' is missing: {KEYS[name].about}")
    found: dict[str, Any] = {
        key.attribute: key.read(key.name, values[key.name]) if key.name in values else key.default
        for key in KEYS.values()
    }
    lengths = [name for name in ("equilibrate", "switch", "cycles") if name in values]
    if "schedule" not in values:
        if lengths:
            raise InputError(
                f"{', '.join(lengths)} given without a schedule: add 'schedule: poly9'"
            )
        if "lambda" not in values:
            raise InputError("give either 'lambda' (fixed) or 'schedule' (switching)")
    else:
        for name in ("equilibrate", "switch"):
            if name not in values:
                raise InputError(
                    f"parameter '{name}' is missing: a schedule needs {KEYS[name].about}"
                )
        if found["cycles"] is None:
            found["cycles"] = 1
        if found["lam"] != 0.0:
            raise InputError(
                f"parameter 'lambda': a schedule starts at 0, got {found['lam']:g}; drop the key"
            )
    if "mass_point" in values and ("schedule" in values or found["masses"] == "interpolate"):
        raise InputError("'mass_point' is for runs at fixed lambda and fixed masses")
    return Parameters(**found)
