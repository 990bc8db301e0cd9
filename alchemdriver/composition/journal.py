"""Results on disk: one JSON object per line, appended when finished, so that a run resumes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
from ase import Atoms

from ..contract.files import append_line, parse_json, read_text, write_text
from ..contract.stored import Format, Shape, dump
from ..errors import InputError, RunError

__all__ = ["Crystal", "Journal", "fingerprint_of"]

log = logging.getLogger(__name__)

T = TypeVar("T")
SCHEMA = "alchemdriver-journal/1"


class Journal(Generic[T]):
    """Finished records by key; ``header`` says what decides them, and must not change.

    The first line holds schema and header (files from before there was a schema have none), every
    other a key beside the fields of a *record*.  Raises RunError if the file was written under
    another header, or is not a journal.  A last line that a kill cut short is dropped and computed
    again.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], record: type[T]):
        self.path = Path(path)
        self.header = json.loads(json.dumps(header))
        self.format = Format(SCHEMA, record, "remove that line", unsigned=True, error=RunError)
        self.records: dict[str, T] = {}
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps({"schema": SCHEMA, "header": self.header}) + "\n")
            return
        lines = self._read().split("\n")
        whole = [line for line in lines[:-1] if line.strip()]
        found = [self._line(n, line) for n, line in enumerate(whole, 1)]
        old = found[0].get("header") if found else None
        if not isinstance(old, dict) or found[0].get("schema", SCHEMA) != SCHEMA:
            raise self._foreign()
        if old != self.header:
            changed = sorted(k for k in {*old, *self.header} if old.get(k) != self.header.get(k))
            raise RunError(
                f"{self.path} was made with other settings ({', '.join(changed)}): choose another "
                "folder, or remove it to start again"
            )
        for n, entry in enumerate(found[1:], 2):
            self.records[str(entry.get("key"))] = self._record(n, entry)
        if lines[-1]:
            log.warning("%s: the last line was cut short; that record is computed again", self.path)
            write_text(self.path, "\n".join(whole) + "\n")

    def get(self, key: str) -> T | None:
        """The record of *key*, None if it is not finished."""
        return self.records.get(key)

    def add(self, key: str, record: T) -> T:
        """Append one finished record and return it as it will be read back."""
        line = json.dumps({"key": key, **dump(record)})
        append_line(self.path, line)
        self.records[key] = self._record(len(self.records) + 2, json.loads(line))
        return self.records[key]

    def _read(self) -> str:
        try:
            return read_text(self.path)
        except InputError as err:
            raise RunError(str(err)) from None

    def _line(self, n: int, line: str) -> dict[str, Any]:
        try:
            entry = parse_json(line, f"line {n}")
        except InputError:
            raise self._foreign() from None
        if not isinstance(entry, dict):
            raise self._foreign()
        return entry

    def _record(self, n: int, entry: dict[str, Any]) -> T:
        content = {k: v for k, v in entry.items() if k != "key"}
        return self.format.load(self.path, self.format.record, content, f"line {n}")

    def _foreign(self) -> RunError:
        return RunError(f"{self.path} is not a journal of results: choose another file")


@dataclass(frozen=True)
class Crystal:
    """All of a crystal, as it stands in a file."""

    symbols: tuple[str, ...]
    fractional: Annotated[np.ndarray, Shape("N 3")]
    cell: Annotated[np.ndarray, Shape("3 3")]  # Å, rows are the lattice vectors

    def __post_init__(self) -> None:
        if len(self.symbols) != len(self.fractional):
            raise InputError(
                f"expected {len(self.symbols)} positions as there are symbols, got "
                f"{len(self.fractional)}"
            )

    @classmethod
    def of(cls, atoms: Atoms) -> Crystal:
        return cls(
            tuple(atoms.get_chemical_symbols()),
            atoms.get_scaled_positions(wrap=False),
            atoms.cell.array,
        )

    def atoms(self) -> Atoms:
        """The inverse of :meth:`of`."""
        return Atoms(self.symbols, scaled_positions=self.fractional, cell=self.cell, pbc=True)


def fingerprint_of(atoms: Atoms) -> str:
    """sha256 of a structure to 1e-8 Å, first 16 digits: tells whether a start has changed."""
    digest = hashlib.sha256(" ".join(atoms.get_chemical_symbols()).encode())
    for array in (atoms.positions, atoms.cell.array):
        digest.update((np.round(array, 8) + 0.0).tobytes())
    return digest.hexdigest()[:16]
