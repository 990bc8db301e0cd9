"""Where a stock i-PI input starts, read by i-PI itself."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from .. import units
from ..contract.transformation import element
from ..errors import InputError
from ..records import Structure
from .run_folder import ipi_masses_are

_HYDROGEN = {"D": "H", "T": "H"}  # i-PI's names of isotopes; their masses come along
_OF_MOMENTA = ("velocities", "momenta", "gle")  # of <initialize>, which say no places


@dataclass(frozen=True)
class Start:
    """The first structure of an input, as i-PI has it in memory."""

    structure: Structure  # of several beads their centroid
    beads: int
    spread: float  # Å, of the beads about their centroid; 0 where they start together
    source: str  # what it was read from, for the user


def read_start(system: ElementTree.Element, folder: Path) -> Start:
    """Positions, cell, species and masses of a ``<system>``, whatever says them.

    i-PI's own initializer reads them, so that its units, orders of precedence and defaults hold.
    folder: what file names are relative to.  Raises InputError, one line, where i-PI cannot.
    """
    initialize = system.find("initialize")
    nodes = [] if initialize is None else list(initialize)
    names = [name for node in nodes if (name := _file(node))]
    what = ", ".join(dict.fromkeys(names)) or "the input itself"
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"start {folder / name} does not exist: give another with --structure FILE"
            )
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
            beads, cell = _initialized(system, folder)
    except (Exception, SystemExit) as err:  # i-PI's readers and ASE's raise all kinds
        reason = _link(folder, names) or " ".join((str(err) or type(err).__name__).split())
        raise InputError(
            f"start ({what}): i-PI cannot read it: {reason}; give another with --structure FILE"
        ) from None
    q = np.array(beads.q, dtype=float).reshape(beads.nbeads, -1, 3) / units.ANGSTROM
    h = np.array(cell.h, dtype=float).T / units.ANGSTROM
    symbols = tuple(_HYDROGEN.get(str(name), str(name)) for name in beads.names)
    for symbol in set(symbols):
        element(symbol, f"start ({what})")
    if not (np.isfinite(q).all() and np.isfinite(h).all()):
        raise InputError(f"start ({what}) holds numbers that are not finite")
    masses = np.array(beads.m, dtype=float) / units.DALTON
    own = None if _elements_own(masses, symbols) else tuple(float(m) for m in masses)
    centroid = q.mean(axis=0)
    spread = float(np.abs(q - centroid).max())
    return Start(Structure(symbols, centroid, h, masses=own), int(beads.nbeads), spread, what)


def _link(folder: Path, names: list[str]) -> str:
    """What to say of a file that holds nothing but another's name, as git leaves symbolic links
    where there are none; '' if there is no such file."""
    for name in names:
        lines = (folder / name).read_bytes()[:300].decode("utf-8", "replace").split("\n")
        target = lines[0].strip()
        if "/" in target and " " not in target and not any(lines[1:]):
            return f"{name} holds the name of a file, {target}, and no atoms"
    return ""


def _file(node: ElementTree.Element) -> str:
    """The file that an element of ``<initialize>`` reads places from; '' if it reads none."""
    if not isinstance(node.tag, str) or node.tag in _OF_MOMENTA:
        return ""
    mode = node.get("mode", "manual" if node.tag == "cell" else "chk").strip()
    return (node.text or "").strip() if mode in ("xyz", "pdb", "ase", "chk") else ""


def _initialized(system: ElementTree.Element, folder: Path) -> tuple[Any, Any]:
    """i-PI's beads and cell after the first stage of its initializer."""
    from ipi.engine.beads import Beads
    from ipi.engine.cell import Cell
    from ipi.inputs.beads import InputBeads
    from ipi.inputs.cell import InputCell
    from ipi.inputs.initializer import InputInitializer
    from ipi.utils.io.inputs.io_xml import xml_parse_string

    def parsed(node: ElementTree.Element, into: Any) -> Any:
        text = ElementTree.tostring(node, encoding="unicode")
        into.parse(xml_parse_string(text).fields[0][1])
        return into.fetch()

    there = {tag: system.find(tag) for tag in ("beads", "cell", "initialize")}
    state = SimpleNamespace(
        beads=Beads(0, 0)
        if there["beads"] is None
        else parsed(there["beads"], InputBeads(help="beads")),
        cell=Cell()
        if there["cell"] is None
        else parsed(there["cell"], InputCell(help="cell", dimension="length", dtype=float)),
    )
    if there["initialize"] is not None:
        initialize = copy.deepcopy(there["initialize"])
        for node in list(initialize):
            if not isinstance(node.tag, str) or node.tag in _OF_MOMENTA:
                initialize.remove(node)
            elif _file(node):
                node.text = str(folder / _file(node))
        parsed(initialize, InputInitializer()).init_stage1(state)
    if state.beads.natoms == 0 or not state.cell.V > 0:
        raise ValueError("expected positions and a cell")
    return state.beads, state.cell


def _elements_own(masses: np.ndarray, symbols: tuple[str, ...]) -> bool:
    """Whether *masses* (N,) u are those of the elements, by ASE's table or by i-PI's older one."""
    table = atomic_masses[[atomic_numbers[s] for s in symbols]]
    return bool(np.allclose(masses, table, rtol=1e-6, atol=0.0)) or ipi_masses_are(masses, symbols)
