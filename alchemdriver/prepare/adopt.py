"""``alchemdriver adopt``: a stock i-PI input becomes one of ours, in a folder of its own.

What the contract understands stays as its author wrote it, comments included; the model takes the
place of the forcefields; what λ and the analysis need is added from the template of the protocol
that the input amounts to.  Every change is one line for the user.  What the contract cannot hold is
refused, by the list in :mod:`alchemdriver.contract.ipi_features`, before anything is written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..contract import run_input
from ..contract.digest import digest
from ..contract.files import read_text, whole_folder, write_json, write_text
from ..contract.parameters import KEYS, check_parameters
from ..contract.run_input import RunInput
from ..contract.transformation import parse_alchemy
from ..contract.xmltree import parse_xml
from ..contract.xyz import write_xyz
from ..errors import AlchemdriverError, InputError
from ..records import Structure
from . import ipi_edits as edits
from .ipi_start import Start, read_start
from .protocols import Protocol, find
from .run_folder import (
    MASSES,
    check_intervals,
    check_models,
    check_named_models,
    masses_at_both_ends,
    masses_to_write,
    said_by,
    sources_of,
)
from .structure import read_structure
from .tree import get_parameters, template_of

_LENGTHS = ("equilibrate", "switch", "cycles", "schedule")


@dataclass(frozen=True)
class Adopted:
    """An adopted input, and what was done to it."""

    folder: Path
    changes: list[str]  # one line each

    @property
    def run(self) -> RunInput:
        return run_input.read_input(self.folder)


def adopt(
    source: Path, folder: Path, parameters: Mapping[str, str], structure: Path | None = None
) -> Adopted:
    """Write *folder*, which must not hold anything yet, from the i-PI input *source*.

    parameters: keys of the contract, as strings; 'model' among them.  Without 'alchemy' it is plain
    dynamics of the model.  structure: where to start, instead of what the input names.

    The folder appears whole or not at all.  Raises InputError, one line, for an input that the
    contract cannot hold.
    """
    text = read_text(source)
    parse_xml(text, str(source))  # refuses what is not i-PI's, entities too
    root = _element(text)
    system = edits.only_system(root)
    changes: list[str] = []
    start = _start(system, source.parent, structure, parameters, changes)

    edits.set_forcefield(root, system, changes)
    edits.set_ensemble(system, changes)
    edits.set_state(root, system, changes)
    edits.set_arrays(system, source.parent, changes)
    protocol = _protocol(system, parameters, start.beads)
    merged = _parameters(protocol, {**said_by(start.structure), **parameters})
    edits.set_outputs(root, protocol, merged, changes)
    sources = sources_of(merged, dict(parameters))
    merged |= {key: file.name for key, file in sources.items() if key in merged}
    atoms = start.structure
    if atoms.masses is not None and "masses_file" not in merged:
        merged["masses_file"] = MASSES
        changes.append(f"{MASSES}: the masses of the start, which are not the elements' own")
    checked = check_parameters(merged)
    transformation = parse_alchemy(checked.alchemy, atoms.symbols)
    check_named_models(parameters, checked, transformation)
    edits.set_length(root, merged, changes)
    edits.set_initialize(system, start.beads, changes)

    folder = Path(folder)
    _must_be_new(folder)
    with whole_folder(folder) as draft:
        for file in sources.values():
            shutil.copyfile(file, draft / file.name)
        write_xyz(draft / "start.xyz", atoms)
        if merged.get("masses_file") == MASSES:
            write_json(draft / MASSES, masses_at_both_ends(atoms, transformation))
        try:
            _write(draft / "input.xml", _prolog(text), root, system, merged, changes)
        except AlchemdriverError as err:
            raise type(err)(str(err).replace(str(draft), str(folder))) from None
    return Adopted(folder, changes)


# --- parts --------------------------------------------------------------------------------------


def _element(text: str) -> ElementTree.Element:
    """The ``<simulation>`` with its comments where they stand."""
    builder = ElementTree.TreeBuilder(insert_comments=True)
    root: ElementTree.Element = ElementTree.fromstring(text, ElementTree.XMLParser(target=builder))
    return root


def _prolog(text: str) -> str:
    """Comments above the root, which are not in its tree."""
    found = re.match(r"\s*(?:<\?xml.*?\?>)?\s*((?:<!--.*?-->\s*)*)", text, re.S)
    return found[1] if found else ""


def _start(
    system: ElementTree.Element,
    home: Path,
    given: Path | None,
    parameters: Mapping[str, str],
    changes: list[str],
) -> Start:
    """Where the run starts, turned into our start.xyz."""
    if given is None:
        start = read_start(system, home)
    else:
        if system.find("initialize/masses") is not None:
            raise InputError(
                "<masses> of <initialize> are of the start that --structure replaces: remove them, "
                "and give the file's own or --masses-file"
            )
        atoms = read_structure(given, given=parameters.keys())
        start = Start(atoms, edits.beads(system), 0.0, str(given))
        changes.extend(atoms.remarks)
        if start.structure.held:
            raise InputError(
                f"structure {given} holds atoms: write <fixatoms> into the <motion> of the input "
                "instead, and remove the constraint"
            )
    atoms = start.structure
    changes.append(
        f"start.xyz: {len(atoms)} atoms in {np.linalg.det(atoms.cell):.2f} Å^3, nearest neighbours "
        f"{_nearest(atoms):.2f} Å apart, from {start.source}"
    )
    if start.spread > 1e-9:
        changes.append(
            f"start.xyz: the {start.beads} beads begin at their centroid (they were up to "
            f"{start.spread:.2g} Å from it)"
        )
    return start


def _nearest(atoms: Structure) -> float:
    """Shortest distance (Å) between two atoms, images included; what a wrong unit shows in."""
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    crystal = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    volume_each = abs(np.linalg.det(atoms.cell)) / len(atoms)
    radius = max(1.0, 1.2 * volume_each ** (1 / 3))
    while True:
        distances = neighbor_list("d", crystal, radius)
        if len(distances):
            return float(distances.min())
        radius *= 1.5


def _protocol(system: ElementTree.Element, parameters: Mapping[str, str], beads: int) -> Protocol:
    """The protocol that the input amounts to; its template has what λ and the analysis need."""
    pressure = edits.constant_pressure(system)
    if any(name in parameters for name in _LENGTHS):
        names = ("switch-pimd-npt", "switch-pimd") if beads > 1 else ("switch-npt", "switch-nvt")
        if parameters.get("alchemy") == "model->scaled":
            names = ("scaling-npt", "scaling-nvt")
    elif "lambda" in parameters:
        names = ("pimd-fixed-npt", "pimd-fixed") if beads > 1 else ("windows-npt", "windows-nvt")
    elif "alchemy" in parameters:
        raise InputError(
            "alchemy: give --lambda 0.5 (or another) for a run at one λ, or --equilibrate and "
            "--switch (steps) for switches between the ends"
        )
    else:
        names = ("npt", "nvt")
    return find(names[0] if pressure else names[1])


def _parameters(protocol: Protocol, given: Mapping[str, str]) -> dict[str, str]:
    """The template's parameters but for what the protocol needs to be told, which is the user's."""
    needed = [option for option in protocol.needs if option.name in KEYS]
    own = get_parameters(template_of(protocol))
    for option in needed:
        own.pop(option.name, None)
    merged = {**own, **given}
    for option in needed:
        if option.name not in merged:
            raise InputError(protocol.missing(option))
    for key, value in merged.items():
        if "," in value:
            raise InputError(f"{key}: no commas, at which i-PI splits its dictionary: '{value}'")
    return {key: merged[key] for key in KEYS if key in merged}


def _must_be_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: choose another folder")


def _write(
    path: Path,
    prolog: str,
    root: ElementTree.Element,
    system: ElementTree.Element,
    merged: Mapping[str, str],
    changes: list[str],
) -> None:
    """Write, read back, and write again with digest and masses."""

    def written(values: Mapping[str, str]) -> RunInput:
        edits.set_parameters(root, values)
        ElementTree.indent(root, "  ")
        write_text(path, prolog + ElementTree.tostring(root, encoding="unicode") + "\n")
        return run_input.read_input(path)

    run = written(merged)
    moved = run.lambda_path.start(run)
    if moved is not run.structure:
        write_xyz(path.with_name("start.xyz"), moved)
        run = written(merged)
    check_models(run)
    masses = masses_to_write(run)
    if masses is not None:
        edits.set_masses(system, masses)
        changes.append("<masses> in u: i-PI's own table has others for these elements at this λ")
    if run.noncanonical:
        changes.append(
            f"fixed λ only: {run.noncanonical}, so work and MBAR have no meaning; averages are "
            "those of the thermostat"
        )
    check_intervals(written({**merged, "digest": digest(run)}))
