"""From a template and what the user gave to an i-PI input."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, unescape

import numpy as np
import xmltodict

from ..contract import run_input
from ..contract.digest import digest
from ..contract.parameters import check_parameters, split_parameters
from ..contract.xmltree import child, parse_xml, text_of
from ..errors import InputError


@dataclass(frozen=True)
class Settings:
    """What replaces the template's own values; None keeps them."""

    temperature: float | None = None  # K
    pressure: float | None = None  # bar
    timestep: float | None = None  # fs
    total_steps: int | None = None  # fixed λ only; a schedule implies it
    beads: int | None = None
    seed: int | None = None


def _set_text(parent: dict, tag: str, text: str) -> None:
    """Replace an element's text, keeping its attributes."""
    node = parent.get(tag)
    if isinstance(node, dict):
        node["#text"] = text
    else:
        parent[tag] = text


def _set_quantity(parent: dict, tag: str, value: float, unit: str) -> None:
    parent[tag] = {"@units": unit, "#text": repr(float(value))}


def render(
    template: dict,
    structure_file: str,
    parameters: dict[str, str],
    settings: Settings,
    masses: np.ndarray | None = None,
) -> dict:
    """A copy of *template* (a ``<simulation>`` tree) with everything the user gave put in.

    masses: (N,) u, written into the XML where they are not the elements' own.
    """
    root = copy.deepcopy(template)
    ff = run_input.alchemical_forcefield(root)
    _set_text(ff, "parameters", "{" + ", ".join(f"{k}: {v}" for k, v in parameters.items()) + "}")
    system = root["system"]
    initialize = system["initialize"]
    _set_text(initialize, "file", structure_file)
    ensemble, dynamics = system["ensemble"], child(system, "motion", "dynamics")
    if settings.temperature is not None:
        _set_quantity(ensemble, "temperature", settings.temperature, "kelvin")
        _set_quantity(initialize, "velocities", settings.temperature, "kelvin")
        initialize["velocities"]["@mode"] = "thermal"
    if settings.pressure is not None:
        if "pressure" not in ensemble:
            raise InputError("pressure is given, but this protocol runs at constant volume")
        _set_quantity(ensemble, "pressure", settings.pressure, "bar")
    if settings.timestep is not None:
        _set_quantity(dynamics, "timestep", settings.timestep, "femtosecond")
    if settings.beads is not None:
        initialize["@nbeads"] = str(settings.beads)
    if masses is not None:
        velocities = initialize.pop("velocities")  # i-PI draws them with the masses set so far
        initialize["masses"] = {
            "@mode": "manual",
            "@units": "dalton",
            "#text": "[" + ", ".join(repr(float(m)) for m in masses) + "]",
        }
        initialize["velocities"] = velocities
    if settings.seed is not None:
        root["prng"]["seed"] = str(settings.seed)
    if "schedule" in parameters:
        checked = check_parameters(parameters)
        period = 2 * (checked.equilibrate + checked.switch)
        root["total_steps"] = str(period * checked.cycles)
    elif settings.total_steps is not None:
        root["total_steps"] = str(settings.total_steps)
    return root


def write_xml(path: Path, root: dict) -> None:
    """Write a ``<simulation>`` tree, indented by two spaces."""
    text = xmltodict.unparse({"simulation": root}, pretty=True, indent="  ")
    # xmltodict escapes comments like text, which XML does not
    text = re.sub("<!--(.*?)-->", lambda m: f"<!-- {unescape(m[1].strip())} -->", text, flags=re.S)
    path.write_text(text.split("\n", 1)[1].rstrip() + "\n")  # i-PI wants no XML declaration


def check_settings(s: Settings) -> None:
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


def edit_parameters(path: Path, changes: dict[str, str | None]) -> None:
    """Change keys of the ``<parameters>`` of an input in place; None removes one.

    Everything else of the file stays as it is, comments included.  Raises InputError, with the
    file as it was, if the result does not read back.
    """
    text = path.read_text()
    start = text.index("{", text.index("<parameters"))
    end = text.index("}", start) + 1
    old = split_parameters(unescape(text[start:end]))
    new = {k: v for k, v in {**old, **changes}.items() if v is not None}
    body = "{" + ", ".join(f"{k}: {v}" for k, v in new.items()) + "}"
    path.write_text(text[:start] + escape(body) + text[end:])
    try:
        ff = run_input.alchemical_forcefield(parse_xml(path.read_text(), str(path)))
        same = split_parameters(text_of(ff["parameters"])) == new
    except InputError:
        same = False
    if not same:
        path.write_text(text)
        given = ", ".join(f"{k}: {v}" for k, v in changes.items())
        raise InputError(f"{path}: cannot change its <parameters>; write by hand: {given}")


def parameters_of(path: Path) -> dict[str, str]:
    """The ``<parameters>`` of an input as they stand, unchecked."""
    ff = run_input.alchemical_forcefield(parse_xml(path.read_text(), str(path)))
    return split_parameters(text_of(ff["parameters"]))


def sign(path: Path) -> str:
    """Write the digest into an input that has none; returns it.

    Raises InputError if the input has another one: the model file, alchemy, masses, tether or
    springs changed after it was written.
    """
    run = run_input.read_input(path)
    expected = digest(run)
    if run.parameters.digest is None:
        edit_parameters(run.path, {"digest": expected})
    elif run.parameters.digest != expected:
        raise InputError(
            f"{run.path}: digest {run.parameters.digest} does not match {expected}: model file, "
            "alchemy, masses, tether or springs changed since it was written; remove the digest "
            "key to accept the change in a run that has not started"
        )
    return expected
