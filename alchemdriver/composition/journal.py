"""Results on disk: one JSON object per line, appended when finished, so that a run resumes."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from ase import Atoms

from ..errors import RunError

__all__ = ["Journal", "atoms_from_dict", "atoms_to_dict", "fingerprint_of"]

log = logging.getLogger(__name__)


class Journal:
    """Finished records by key; ``header`` says what decides them, and must not change.

    Raises RunError if the file was written under another header, or is not a journal.  A last line
    that a kill cut short is dropped and computed again.
    """

    def __init__(self, path: Path, header: dict):
        self.path = Path(path)
        self.header = json.loads(json.dumps(header))
        self.records: dict[str, dict] = {}
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({"header": self.header}) + "\n")
            return
        text = self.path.read_text()
        lines = text.split("\n")
        whole = [line for line in lines[:-1] if line.strip()]
        try:
            found = [json.loads(line) for line in whole]
            old = found[0]["header"]
            self.records = {entry["key"]: entry for entry in found[1:]}
        except (ValueError, KeyError, IndexError, TypeError):
            raise RunError(
                f"{self.path} is not a journal of results: choose another file"
            ) from None
        if old != self.header:
            changed = sorted(k for k in {*old, *self.header} if old.get(k) != self.header.get(k))
            raise RunError(
                f"{self.path} was made with other settings ({', '.join(changed)}): choose another "
                "folder, or remove it to start again"
            )
        if lines[-1]:
            log.warning("%s: the last line was cut short; that record is computed again", self.path)
            self.path.write_text("\n".join(whole) + "\n")

    def get(self, key: str) -> dict | None:
        """The record of *key*, None if it is not finished."""
        return self.records.get(key)

    def add(self, key: str, record: dict) -> dict:
        """Append one finished record and return it as it will be read back."""
        entry = json.loads(json.dumps({"key": key, **record}))
        with open(self.path, "a") as stream:
            stream.write(json.dumps(entry) + "\n")
        self.records[key] = entry
        return entry


def atoms_to_dict(atoms: Atoms) -> dict:
    """Symbols, fractional coordinates and cell (Å): all of a crystal."""
    return {
        "symbols": atoms.get_chemical_symbols(),
        "fractional": atoms.get_scaled_positions(wrap=False).tolist(),
        "cell": atoms.cell.array.tolist(),
    }


def atoms_from_dict(content: dict) -> Atoms:
    """The inverse of :func:`atoms_to_dict`."""
    return Atoms(
        content["symbols"], scaled_positions=content["fractional"], cell=content["cell"], pbc=True
    )


def fingerprint_of(atoms: Atoms) -> str:
    """sha256 of a structure to 1e-8 Å, first 16 digits: tells whether a start has changed."""
    digest = hashlib.sha256(" ".join(atoms.get_chemical_symbols()).encode())
    for array in (atoms.positions, atoms.cell.array):
        digest.update((np.round(array, 8) + 0.0).tobytes())
    return digest.hexdigest()[:16]
