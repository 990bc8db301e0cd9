"""The keys of ``<parameters>``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, did_you_mean

KEYS = {
    "model": "embedded name, foundation name, or path relative to the XML",
    "alchemy": "'Pb->Sn', 'Fe[12]->void', 'einstein->model', 'model->scaled' or 'none'",
    "springs": "extxyz file with positions and spring_constant (eV/Å^2): the Einstein reference",
    "tether": "spring constant (eV/Å^2) of atoms going to void",
    "scale": "final scale T0/T of 'model->scaled', e.g. 0.25 from 300 K to 1200 K",
    "lambda": "fixed λ, or the initial value under a schedule",
    "schedule": "poly9, linear, or a table file (tau, lambda)",
    "equilibrate": "steps of each hold",
    "switch": "steps of each switch",
    "cycles": "forward/backward pairs",
    "masses": "interpolate or fixed",
    "interpolation": "alchemical or linear",
    "dtype": "float64 or float32",
    "digest": "written by prepare and run",
    "masses_file": "JSON with 'initial' and 'final' masses (u), one per atom",
    "mass_point": "place on the mass leg, 0 (initial masses) to 1 (final), ln m linear",
}
_CHOICES = {
    "masses": ("interpolate", "fixed"),
    "interpolation": ("alchemical", "linear"),
    "dtype": ("float64", "float32"),
}


@dataclass(frozen=True)
class Parameters:
    """The checked ``<parameters>`` dictionary; None means that the key is absent."""

    model: str
    alchemy: str
    lam: float
    schedule: str | None
    equilibrate: int | None  # steps
    switch: int | None  # steps
    cycles: int | None
    masses: str | None
    interpolation: str
    dtype: str
    springs: str | None
    tether: float | None  # eV/Å^2
    scale: float | None  # s at λ = 1, of model->scaled
    digest: str | None
    masses_file: str | None
    mass_point: float | None  # 0 to 1


def _number(text: str, key: str, kind: type = float):
    try:
        value = kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise InputError(f"parameter '{key}': expected {expected}, got '{text}'") from None
    if kind is float and not np.isfinite(value):
        raise InputError(f"parameter '{key}': expected a finite number, got '{text}'")
    return value


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
    for key in values:
        if key not in KEYS:
            raise InputError(
                f"unknown parameter '{key}'{did_you_mean(key, KEYS)}; known: {', '.join(KEYS)}"
            )
    for key in ("model", "alchemy"):
        if key not in values:
            raise InputError(f"parameter '{key}' is missing: {KEYS[key]}")
    for key, allowed in _CHOICES.items():
        if key in values and values[key] not in allowed:
            raise InputError(
                f"parameter '{key}': expected {' or '.join(allowed)}, got '{values[key]}'"
                f"{did_you_mean(values[key], allowed)}"
            )
    schedule = values.get("schedule")
    lengths = {
        key: _number(values[key], key, int) if key in values else None
        for key in ("equilibrate", "switch", "cycles")
    }
    if schedule is None and any(v is not None for v in lengths.values()):
        given = ", ".join(k for k, v in lengths.items() if v is not None)
        raise InputError(f"{given} given without a schedule: add 'schedule: poly9'")
    if schedule is not None:
        for key in ("equilibrate", "switch"):
            if lengths[key] is None:
                raise InputError(f"parameter '{key}' is missing: a schedule needs {KEYS[key]}")
        if lengths["cycles"] is None:
            lengths["cycles"] = 1
    if schedule is None and "lambda" not in values:
        raise InputError("give either 'lambda' (fixed) or 'schedule' (switching)")
    lam = _number(values.get("lambda", "0"), "lambda")
    if not 0.0 <= lam <= 1.0:
        raise InputError(f"parameter 'lambda': expected a number in [0, 1], got {lam:g}")
    if schedule is not None and lam != 0.0:
        raise InputError(f"parameter 'lambda': a schedule starts at 0, got {lam:g}; drop the key")
    tether = _number(values["tether"], "tether") if "tether" in values else None
    if tether is not None and tether <= 0:
        raise InputError(f"parameter 'tether': expected a positive eV/Å^2, got {tether:g}")
    scale = _number(values["scale"], "scale") if "scale" in values else None
    if scale is not None and (scale <= 0 or scale == 1):
        raise InputError(
            f"parameter 'scale': expected a positive number other than 1 (T0/T), got {scale:g}"
        )
    point = _number(values["mass_point"], "mass_point") if "mass_point" in values else None
    if point is not None:
        if not 0.0 <= point <= 1.0:
            raise InputError(f"parameter 'mass_point': expected a number in [0, 1], got {point:g}")
        if schedule is not None or values.get("masses") == "interpolate":
            raise InputError("'mass_point' is for runs at fixed lambda and fixed masses")
    return Parameters(
        model=values["model"],
        alchemy=values["alchemy"],
        lam=lam,
        schedule=schedule,
        masses=values.get("masses"),
        interpolation=values.get("interpolation", "alchemical"),
        dtype=values.get("dtype", "float64"),
        springs=values.get("springs"),
        tether=tether,
        scale=scale,
        digest=values.get("digest"),
        masses_file=values.get("masses_file"),
        mass_point=point,
        **lengths,
    )
