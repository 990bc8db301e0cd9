"""An i-PI input as a tree of dicts (xmltodict's): everything that is ever changed in one.

Trees are changed in place; whoever needs the old one copies it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, unescape

import numpy as np
import xmltodict

from ..contract.files import write_text
from ..contract.parameters import check_parameters, split_parameters
from ..contract.run_input import alchemical_forcefield
from ..contract.xmltree import many, parse_xml, text_of
from ..errors import InputError
from .protocols import Protocol

Tree = dict[str, Any]


def template_of(protocol: Protocol) -> Tree:
    """The ``<simulation>`` of the protocol's XML file."""
    return parse_xml(protocol.template.read_text(encoding="utf-8"), protocol.name)


def set_text(parent: Tree, tag: str, text: str) -> None:
    """Replace an element's text, keeping its attributes."""
    node = parent.get(tag)
    if isinstance(node, dict):
        node["#text"] = text
    else:
        parent[tag] = text


def set_quantity(parent: Tree, tag: str, value: float, unit: str) -> None:
    parent[tag] = {"@units": unit, "#text": repr(float(value))}


def get_parameters(root: Tree) -> dict[str, str]:
    """The ``<parameters>`` of the alchemical forcefield as they stand, unchecked."""
    return split_parameters(text_of(alchemical_forcefield(root).get("parameters")))


def set_parameters(root: Tree, parameters: Mapping[str, str]) -> None:
    set_text(alchemical_forcefield(root), "parameters", _dictionary(parameters))


def get_seed(root: Tree) -> int:
    return int(text_of(root["prng"]["seed"]))


def set_seed(root: Tree, seed: int) -> None:
    root["prng"]["seed"] = str(seed)


def set_masses(root: Tree, masses: np.ndarray | None) -> None:
    """*masses* (N,) u for ``<initialize>``; None leaves the elements' own."""
    initialize = root["system"]["initialize"]
    initialize.pop("masses", None)
    if masses is not None:
        velocities = initialize.pop("velocities")  # i-PI draws them with the masses set so far
        initialize["masses"] = {
            "@mode": "manual",
            "@units": "dalton",
            "#text": "[" + ", ".join(repr(float(m)) for m in masses) + "]",
        }
        initialize["velocities"] = velocities


def set_held(root: Tree, held: Collection[int]) -> None:
    """Coordinates 3 i + axis that do not move; with any of them i-PI frees the centre of mass."""
    if not held:
        return
    motion = root["system"]["motion"]
    whole = [k // 3 for k in held if k % 3 == 0 and {k + 1, k + 2} <= {*held}]
    rest = [k for k in held if k // 3 not in whole]
    motion["fixcom"] = "False"
    for tag, numbers in (("fixatoms", whole), ("fixatoms_dof", rest)):
        if numbers:
            motion[tag] = "[" + ", ".join(map(str, numbers)) + "]"


def set_flexible(root: Tree) -> None:
    """Let the barostat change the shape of the cell, and the comment on top say so."""
    root["system"]["motion"]["dynamics"]["barostat"]["@mode"] = "flexible"
    root["#comment"] = root["#comment"].replace("isotropic cell", "flexible cell")
    if "schedule" not in get_parameters(root):  # the finite-cell term is from fixed λ
        printed = root["output"]["properties"]
        printed["#text"] = printed["#text"].rstrip(" ]") + ", cell_h{angstrom}, stress_md{bar} ]"


def add_trajectory(root: Tree, node: Tree) -> None:
    output = root["output"]
    output["trajectory"] = [*many(output.get("trajectory")), node]


def write_xml(path: Path, root: Tree) -> None:
    """Write a ``<simulation>`` tree, indented by two spaces."""
    text = xmltodict.unparse({"simulation": root}, pretty=True, indent="  ")
    # xmltodict escapes comments like text, which XML does not
    text = re.sub("<!--(.*?)-->", lambda m: f"<!-- {unescape(m[1].strip())} -->", text, flags=re.S)
    text = text.split("\n", 1)[1].rstrip() + "\n"  # i-PI wants no XML declaration
    write_text(path, text)


# --- inputs on disk, which may be a user's -------------------------------------------------------


def parameters_of(path: Path) -> dict[str, str]:
    """The ``<parameters>`` of an input as they stand, unchecked."""
    return get_parameters(parse_xml(path.read_text(encoding="utf-8"), str(path)))


def edit_parameters(path: Path, changes: Mapping[str, str | None]) -> None:
    """Change keys of the ``<parameters>`` of an input in place; None removes one.

    Everything else of the file stays as its author wrote it, quotes and comments included, so it
    is not written from a tree.  Raises InputError, with the file as it was, if the result does not
    read back.
    """
    write_text(path, _with_parameters(path, path.read_text(encoding="utf-8"), changes))


def with_cycles(path: Path, cycles: int) -> str:
    """The text of a switching input with so many *cycles*, and the <total_steps> that they take;
    the rest as its author wrote it.  Raises InputError if that does not read back."""
    text = path.read_text(encoding="utf-8")
    old = parse_xml(text, str(path))
    lengths = check_parameters(get_parameters(old))
    if lengths.equilibrate is None or lengths.switch is None:
        raise InputError(f"{path} has no schedule: nothing of it can be counted in cycles")
    steps = str(2 * (lengths.equilibrate + lengths.switch) * cycles)
    edited = _with_parameters(path, text, {"cycles": str(cycles)})
    edited = re.sub(
        r"(<total_steps>\s*)[0-9]+(\s*</total_steps>)", rf"\g<1>{steps}\g<2>", edited, count=1
    )
    new = parse_xml(edited, str(path))
    set_text(old, "total_steps", steps)
    set_parameters(old, get_parameters(new))
    set_parameters(new, get_parameters(new))  # both in one spelling
    if new != old:
        raise InputError(
            f"{path}: cannot change its length; write by hand: cycles: {cycles}, "
            f"<total_steps>{steps}</total_steps>"
        )
    return edited


def _with_parameters(path: Path, text: str, changes: Mapping[str, str | None]) -> str:
    start = text.index("{", text.index("<parameters"))
    end = text.index("}", start) + 1
    old = split_parameters(unescape(text[start:end]))
    new = {k: v for k, v in {**old, **changes}.items() if v is not None}
    edited = text[:start] + escape(_dictionary(new)) + text[end:]
    try:
        same = get_parameters(parse_xml(edited, str(path))) == new
    except InputError:
        same = False
    if not same:
        given = ", ".join(f"{k}: {v}" for k, v in changes.items())
        raise InputError(f"{path}: cannot change its <parameters>; write by hand: {given}")
    return edited


def _dictionary(parameters: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{k}: {v}" for k, v in parameters.items()) + "}"
