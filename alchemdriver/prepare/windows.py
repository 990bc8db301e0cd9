"""Equilibrium windows: one folder per λ, each a plain fixed-λ input of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..contract.files import whole_folder
from ..contract.nodes import gauss_legendre
from ..contract.text import parse_numbers
from ..errors import AlchemdriverError, InputError
from ..records import Structure
from .protocols import PROTOCOLS, find
from .render import Settings
from .run_folder import prepare
from .tree import get_seed, template_of


def nodes(windows: int | None, lambdas: str | None) -> list[float]:
    """The λ of *windows* Gauss–Legendre nodes, or those listed in *lambdas*.  Raises InputError."""
    if windows is not None and lambdas is None:
        if not 2 <= windows <= 100:
            raise InputError(f"windows: expected 2 to 100, got {windows}")
        return [float(x) for x in gauss_legendre(windows)[0]]
    if lambdas is None or windows is not None:
        raise InputError(
            "give either --windows 7 (Gauss–Legendre nodes) or --lambdas '0 0.25 0.5 0.75 1'"
        )
    values = parse_numbers(lambdas, "lambdas", such_as="'0 0.5 1'")
    if len(values) < 2 or len(set(values)) < len(values):
        raise InputError(f"lambdas: expected two or more different numbers, got '{lambdas}'")
    if not all(0.0 <= x <= 1.0 for x in values):
        raise InputError(f"lambdas: expected numbers in [0, 1], got '{lambdas}'")
    return sorted(values)


def prepare_windows(
    protocol: str,
    structure: Structure,
    folder: Path,
    parameters: dict[str, str],
    lambdas: list[float],
    settings: Settings | None = None,
    replicas: int = 1,
) -> list[Path]:
    """Write ``folder/window-1`` … (``window-1-replica-1`` …), one fixed-λ run each.

    Every run has a seed of its own, counted up from that of *settings*.  Returns the folders.
    Raises InputError as :func:`.run_folder.prepare` does, before anything is written.
    """
    settings = settings or Settings()
    folder = Path(folder)
    known = find(protocol)
    if not known.at_several_lambdas:
        names = ", ".join(p.name for p in PROTOCOLS if p.at_several_lambdas)
        raise InputError(f"expected one of {names}, got '{protocol}'")
    if "lambda" in parameters or "schedule" in parameters:
        raise InputError("windows take their λ from --windows or --lambdas, and no schedule")
    if replicas < 1:
        raise InputError(f"replicas: expected at least 1, got {replicas}")
    if (folder / "input.xml").exists() or any(folder.glob("*/input.xml")):
        raise InputError(f"{folder} already holds an input: choose another folder")
    seed = get_seed(template_of(known)) if settings.seed is None else settings.seed
    written: list[Path] = []
    with whole_folder(folder) as place:
        for r in range(replicas):
            for i, lam in enumerate(lambdas):
                name = f"window-{i + 1}" if replicas == 1 else f"window-{i + 1}-replica-{r + 1}"
                own = replace(settings, seed=seed + len(written))
                keys = {**parameters, "lambda": repr(lam)}
                try:
                    prepare(protocol, structure, place / name, keys, own)
                except AlchemdriverError as err:
                    raise type(err)(str(err).replace(str(place), str(folder))) from None
                written.append(folder / name)
    return written
