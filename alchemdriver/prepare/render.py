"""From a template and what the user gave to an i-PI input."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import run_input
from ..contract.digest import digest
from ..contract.parameters import check_parameters
from ..contract.xmltree import child
from ..errors import InputError
from . import tree
from .tree import Tree


@dataclass(frozen=True)
class Settings:
    """What replaces the template's own values; None keeps them."""

    temperature: float | None = None  # K
    pressure: float | None = None  # bar
    timestep: float | None = None  # fs
    total_steps: int | None = None  # fixed λ only; a schedule implies it
    beads: int | None = None
    seed: int | None = None


def render(
    template: Tree,
    structure_file: str,
    parameters: Mapping[str, str],
    settings: Settings,
    masses: np.ndarray | None = None,
) -> Tree:
    """A copy of *template* (a ``<simulation>`` tree) with everything the user gave put in.

    masses: (N,) u, written into the XML where they are not the elements' own.
    """
    root = copy.deepcopy(template)
    tree.set_parameters(root, parameters)
    system = root["system"]
    initialize = system["initialize"]
    tree.set_text(initialize, "file", structure_file)
    ensemble, dynamics = system["ensemble"], child(system, "motion", "dynamics")
    if settings.temperature is not None:
        tree.set_quantity(ensemble, "temperature", settings.temperature, "kelvin")
        tree.set_quantity(initialize, "velocities", settings.temperature, "kelvin")
        initialize["velocities"]["@mode"] = "thermal"
    if settings.pressure is not None:
        tree.set_quantity(ensemble, "pressure", settings.pressure, "bar")
    if settings.timestep is not None:
        tree.set_quantity(dynamics, "timestep", settings.timestep, "femtosecond")
    if settings.beads is not None:
        initialize["@nbeads"] = str(settings.beads)
    tree.set_masses(root, masses)
    if settings.seed is not None:
        tree.set_seed(root, settings.seed)
    if "schedule" in parameters:
        lengths = check_parameters(parameters)
        assert lengths.equilibrate is not None  # a schedule has all three
        assert lengths.switch is not None
        assert lengths.cycles is not None
        root["total_steps"] = str(2 * (lengths.equilibrate + lengths.switch) * lengths.cycles)
    elif settings.total_steps is not None:
        root["total_steps"] = str(settings.total_steps)
    return root


def check_settings(s: Settings) -> None:
    """Raises InputError for a number that nothing can be run with."""
    for name, value, unit in (
        ("temperature", s.temperature, "K"),
        ("timestep", s.timestep, "fs"),
    ):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name}: expected a positive number of {unit}, got {value:g}")
    if s.pressure is not None and not math.isfinite(s.pressure):
        raise InputError(f"pressure: expected a finite number of bar, got {s.pressure:g}")
    for name, value, least in (
        ("steps", s.total_steps, 1),
        ("beads", s.beads, 1),
        ("seed", s.seed, 0),
    ):
        if value is not None and value < least:
            raise InputError(f"{name}: expected at least {least}, got {value}")


def sign(path: Path) -> str:
    """Write the digest into an input that has none; returns it.

    Raises InputError if the input has another one: the model file, alchemy, masses, tether or
    springs changed after it was written.
    """
    run = run_input.read_input(path)
    expected = digest(run)
    if run.parameters.digest is None:
        tree.edit_parameters(run.path, {"digest": expected})
    elif run.parameters.digest != expected:
        raise InputError(
            f"{run.path}: digest {run.parameters.digest} does not match {expected}: model file, "
            "alchemy, masses, tether or springs changed since it was written; remove the digest "
            "key to accept the change in a run that has not started"
        )
    return expected
