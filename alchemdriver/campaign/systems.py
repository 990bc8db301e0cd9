"""The structure files of a campaign: copies of the user's, and substituted cells."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ase import Atoms
from ase.io import write as ase_write

from ..composition.mixture import Mixture
from ..composition.supercells import cells
from ..contract.files import sha256_of
from ..contract.text import parse_supercell
from ..errors import InputError
from ..prepare.structure import read_atoms
from .grid import Point, composition_names, safe
from .plan import Compositions, Plan
from .record import System

__all__ = ["Systems"]

FOLDER = "systems"


@dataclass
class Systems:
    """What the cases start from; ``files`` holds the content of what is to be written."""

    plan: Plan
    home: Path  # the plan's folder: its paths are relative to it
    found: dict[str, System] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # path in the campaign → content
    _cells: dict[tuple[object, ...], list[Atoms]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name in self.plan.named_structures():
            other = seen.setdefault(safe(name), name)
            if other != name:
                raise InputError(
                    f"structures: '{other}' and '{name}' are one name for a folder, "
                    f"'{safe(name)}': name them, structures = {{gamma = '…', delta = '…'}}"
                )

    def of(self, point: Point) -> str:
        """The name of the system of *point*, made if it is a new one.  Raises InputError."""
        structure = str(point.axes["structure"])
        path = self.home / self.plan.named_structures()[structure]
        if self.plan.compositions is None:
            if structure not in self.found:
                if not path.is_file():
                    raise InputError(f"structures: {path} does not exist")
                content = path.read_bytes()
                self._add(structure, f"{safe(structure)}{_ending(path)}", content, path, None)
            return structure
        composition = str(point.axes["composition"])
        supercell = str(point.axes["supercell"])
        name = "_".join((safe(structure), supercell, composition))
        if name not in self.found:
            index = point.options.get("index")
            atoms = self._substituted(self.plan.compositions, path, composition, supercell, index)
            text = io.StringIO()
            ase_write(text, atoms, format="extxyz")
            made = {k: v for k, v in atoms.info.items() if isinstance(v, (str, int, float))}
            self._add(name, f"{name}.xyz", text.getvalue().encode(), path, made)
        return name

    def _substituted(
        self, c: Compositions, path: Path, composition: str, supercell: str, index: object
    ) -> Atoms:
        shares, sample = composition_names(c)[composition]
        key = (path, composition.rpartition("-cell")[0] or composition, supercell, index)
        if key not in self._cells:
            parent = read_atoms(path, index if isinstance(index, int) else None)
            parent = parent.repeat(parse_supercell(supercell))
            mixture = Mixture.from_text(parent, c.sublattices)
            self._cells[key] = cells(
                mixture, mixture.weights(shares).tolist(), c.method, c.samples, c.seed
            )
        made = self._cells[key]
        if sample >= len(made):
            raise InputError(
                f"compositions.samples: {path.name} {supercell} has {len(made)} distinct orderings "
                f"of {composition}, fewer than {c.samples}"
            )
        return made[sample]

    def _add(
        self,
        name: str,
        file: str,
        content: bytes,
        source: Path,
        made: Mapping[str, str | int | float] | None,
    ) -> None:
        inside = f"{FOLDER}/{file}"
        self.files[inside] = content
        digest = sha256_of(io.BytesIO(content))
        self.found[name] = System(inside, digest, str(source), None if made is None else dict(made))


def _ending(path: Path) -> str:
    """What ASE tells a format by: an ending, or a name such as POSCAR."""
    return path.suffix or f"-{path.name}"
