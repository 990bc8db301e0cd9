"""i-PI's xyz files: the cell stands in the comment line, positions and cell in Å.

Written with ``CELL(H)`` and 17 digits, so that what i-PI starts from is exactly what was prepared.
i-PI wants a along x and b in the xy plane; :func:`standard_orientation` turns a structure that way.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from ..errors import InputError
from ..records import Structure
from .files import write_text
from .transformation import element

_CELL = re.compile(r"CELL[\(\[\{](abcABC|H|GENH)[\)\]\}]:\s*((?:[-+0-9.eE]+\s*)+)")


def standard_orientation(structure: Structure) -> tuple[Structure, np.ndarray]:
    """The same structure with a along +x and b in the xy plane, and the rotation Q (3, 3).

    Row vectors turn as v' = v Q; turn momenta with the same Q.  Raises InputError for a cell that
    is singular or left-handed.
    """
    if np.linalg.det(structure.cell) <= 1e-6:
        raise InputError(
            "the cell must be right-handed with a positive volume, got determinant "
            f"{np.linalg.det(structure.cell):.3g} Å^3"
        )
    q, r = np.linalg.qr(structure.cell.T)
    signs = np.sign(np.diag(r))
    q, r = q * signs, r * signs[:, None]
    cell = np.triu(r).T  # exact zeros above the diagonal
    parts = [
        k for k in structure.held if not {3 * (k // 3) + a for a in range(3)} <= {*structure.held}
    ]
    if parts and not np.allclose(q, np.eye(3), atol=1e-9):
        raise InputError(
            f"atom {parts[0] // 3} is held along some axes only, but i-PI's cell is turned against "
            "these: give the cell with a along x and b in the xy plane"
        )
    return replace(structure, positions=structure.positions @ q, cell=cell), q


def write_xyz(path: Path, structure: Structure) -> None:
    """Write *structure* (already in standard orientation) for ``<file mode='xyz'>``."""
    h = " ".join(f"{x:.16e}" for x in structure.cell.T.ravel())
    lines = [str(len(structure)), f"# CELL(H): {h} cell{{angstrom}} positions{{angstrom}}"]
    for symbol, r in zip(structure.symbols, structure.positions, strict=True):
        lines.append(f"{symbol:4s} {r[0]:.16e} {r[1]:.16e} {r[2]:.16e}")
    write_text(path, "\n".join(lines) + "\n")


def read_xyz(path: Path, units: str = "automatic", cell_units: str = "automatic") -> Structure:
    """First frame of an i-PI xyz file, in Å.  Raises InputError with the line that does not fit.

    units, cell_units: the attributes of ``<file>``.  What neither they nor the comment line give is
    in bohr for i-PI, which nobody means who writes ångström: it must be said.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as err:
        raise InputError(f"structure {path} cannot be read: {err.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"structure {path} is not a text file") from None
    try:
        n = int(lines[0])
        rows = [line.split() for line in lines[2 : 2 + n]]
        symbols = tuple(row[0] for row in rows)
        positions = np.array([[float(x) for x in row[1:4]] for row in rows]).reshape(len(rows), 3)
    except (IndexError, ValueError):
        raise InputError(
            f"structure {path} is not an xyz file: expected a count, a comment, "
            "then 'symbol x y z' lines"
        ) from None
    if n < 1 or len(rows) != n:
        raise InputError(f"structure {path}: expected {n} atoms, found {len(rows)}")
    comment = lines[1]
    for unit, what in re.findall(r"(?:positions|cell)\{(\w+)\}()", comment):
        if unit != "angstrom":
            raise InputError(
                f"structure {path}: expected angstrom in the comment, got {unit}{what}"
            )
    for what, unit in (("positions", units), ("cell", cell_units)):
        said = re.search(what + r"\{(\w+)\}", comment)
        if unit not in ("automatic", "angstrom"):
            raise InputError(
                f"structure {path}: {what} are in {unit} by the <file> of the input: expected "
                "angstrom"
            )
        if said is None and unit == "automatic":
            raise InputError(
                f"structure {path}: no unit of its {what}, which i-PI then takes as bohr: write "
                "'cell{angstrom} positions{angstrom}' at the end of the comment line"
            )
    match = _CELL.search(comment)
    if not match:
        raise InputError(f"structure {path}: no CELL(H) or CELL(abcABC) in the comment line")
    if match[1] == "GENH":
        raise InputError(
            f"structure {path}: CELL(GENH) makes i-PI turn the cell; write CELL(H), "
            "or let 'alchemdriver prepare' do it"
        )
    try:
        values = [float(x) for x in match[2].split()]
    except ValueError:
        raise InputError(f"structure {path}: cell: expected numbers, got '{match[2]}'") from None
    if len(values) < (6 if match[1] == "abcABC" else 9):
        raise InputError(f"structure {path}: CELL({match[1]}) has only {len(values)} numbers")
    if match[1] == "abcABC":
        cell = np.array(cellpar_to_cell(values[:6]))
    else:
        cell = np.array(values[:9]).reshape(3, 3).T
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise InputError(f"structure {path} contains numbers that are not finite")
    volume = np.linalg.det(cell)
    if volume <= 1e-6:
        raise InputError(f"structure {path}: the cell has a volume of {volume:.3g} Å^3")
    if np.abs(np.triu(cell, 1)).max() > 1e-6 * np.abs(cell).max():
        raise InputError(
            f"structure {path}: i-PI needs a along x and b in the xy plane; "
            "let 'alchemdriver prepare' turn it"
        )
    for symbol in set(symbols):
        element(symbol, f"structure {path}")
    return Structure(symbols, positions, cell)
