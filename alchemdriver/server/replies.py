"""What a client may send: the frame of a reply and what must be in it; no socket in sight."""

from __future__ import annotations

import re
import struct

import numpy as np

from .ipi_types import Reply

HEADER = 12  # bytes of a message name
FORCEREADY = b"FORCEREADY".ljust(HEADER)
HUNG = "client process %d hung: no answer within %g s, its work is handed on"
_HUNG_LINE = re.compile(rb"client process (\d+) hung")
_INT = struct.Struct("=i")
_DOUBLE = 8


class Dropped(Exception):
    """A client that is to be dropped; the message says what it did."""


def hung_processes(lines: bytes) -> set[int]:
    """The process ids of clients that hang, by what a server has logged."""
    return {int(pid) for pid in _HUNG_LINE.findall(lines)}


def most_extras(n_atoms: int, keys: int) -> int:
    """Bytes that the extras of one structure may have: 16 KiB, and 1 KiB for each atom and key that
    the input prints or interpolates (a vector in JSON takes 80 bytes)."""
    return 16384 + 1024 * n_atoms * keys


def frame(
    data: bytes | bytearray, n_atoms: int, batch: int, shared: bool, most: int
) -> tuple[int, bool]:
    """Length of the reply that *data* begins with, by the lengths that stand in what has come, and
    whether all of it is there.

    Layout after ``FORCEREADY`` for B structures: B energies, N, B × forces, B × virial, not with
    *shared* memory; then B × (length, extras).  Nothing is read ahead on the word of a length:
    Dropped for another N, or extras of more than *most* bytes.
    """
    if data[:HEADER] != FORCEREADY[: len(data)]:
        raise Dropped("broken reply (expected FORCEREADY)")
    at = HEADER
    if not shared:
        at += batch * _DOUBLE
        if len(data) >= at + _INT.size and (found := _INT.unpack_from(data, at)[0]) != n_atoms:
            raise Dropped(f"forces for {found} atoms, expected {n_atoms}")
        at += _INT.size + batch * (3 * n_atoms + 9) * _DOUBLE
    for _ in range(batch):
        if len(data) < at + _INT.size:
            return at + _INT.size, False
        (length,) = _INT.unpack_from(data, at)
        if not 0 <= length <= most:
            raise Dropped(f"announced {length} bytes of extras, expected at most {most}")
        at += _INT.size + length
    return at, len(data) >= at


def check_reply(result: Reply, lam: float, natoms: int, needs_gradient: bool) -> str | None:
    """What is wrong with a client's [energy, forces, virial, extras]; None if nothing.

    i-PI marks a request done, NaN included, before anything above sees it; this is the gate.
    """
    energy, forces, virial, extras = result
    if len(forces) != 3 * natoms:
        return f"forces for {len(forces) // 3} atoms, expected {natoms}"
    if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(virial).all()):
        return "energy, forces or virial are not finite"
    if not needs_gradient:
        return None
    for key in ("lambda", "dHdlambda"):
        if not isinstance(extras.get(key), (int, float)) or not np.isfinite(extras[key]):
            return f"extras without a finite '{key}': is this an alchemdriver client?"
    if extras["lambda"] != lam:  # λ travels as repr(float) both ways: the echo is exact
        return f"answered for lambda = {extras['lambda']!r}, asked for {lam!r}"
    return None
