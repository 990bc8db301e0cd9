"""i-PI on the wire, client side: bytes in, events out.

No socket and no physics here: `Decoder.feed` takes whatever a socket delivered, in chunks of any
size, `Decoder.next_event` hands out one event at a time, and the ``encode_*`` functions return the
bytes to send.  Everything on the wire is in atomic units.

One exchange as i-PI 3.3 holds it (``ipi/interfaces/sockets.py``)::

    i-PI    STATUS                                   client  NEEDINIT
            INIT  replica, length, "key : value , "
            STATUS                                           READY
            POSDATA  cell, inverse cell, N, positions
            GETFORCE                                         FORCEREADY  energy, N, forces,
                                                                         virial, length, extras

i-PI sends POSDATA and GETFORCE in one go, or with STATUS/HAVEDATA between them (its
``consolidate_messages`` option); the decoder does not care.  After GETFORCE this client asks for
INIT again, so that every request carries its own parameters, λ among them.

A server of this package may begin with CHALLENGE and 32 bytes, see :mod:`..contract.secret`.

Traps on i-PI's side: it reads a reply header with a single ``recv``, so a reply must leave in one
piece; an atom count other than its own, or extras that are not UTF-8, end its polling thread.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike

from ..contract.secret import CHALLENGE, NONCE, PROOF, REFUSED, Session
from ..errors import WireError

__all__ = [
    "Challenge",
    "Decoder",
    "Exit",
    "GetForce",
    "Init",
    "PosData",
    "Refused",
    "Reply",
    "SharedPosData",
    "State",
    "Status",
    "encode_extras",
    "encode_forces",
    "encode_proof",
    "encode_shared",
    "encode_status",
    "parse_parameters",
]

HEADER = 12  # bytes of a message name, padded with blanks
MAX_INIT = 1 << 20  # bytes of an INIT string; i-PI's own are some hundred
MAX_BATCH = 4096  # structures in one POSDATA
SEGMENTS = 6  # of shared memory per client
MAX_NAME = 250  # bytes of a segment's name
_SEGMENT_NAME = re.compile(rb"[A-Za-z0-9_.-]+")  # no path

_INT = struct.Struct("=i")  # i-PI sends native integers and doubles, so both ends share endianness
_TWO_INTS = struct.Struct("=ii")
_DOUBLE = 8
_CELLS = 18 * _DOUBLE  # cell and inverse cell of one structure


class State(Enum):
    """What the client says of itself when asked for its STATUS."""

    NEEDINIT = "NEEDINIT"
    READY = "READY"
    HAVEDATA = "HAVEDATA"
    CLOSED = "closed"  # after EXIT; never sent


@dataclass(frozen=True)
class Status:
    """i-PI asks how we are; answer with ``encode_status(state)``."""

    state: State


@dataclass(frozen=True)
class Init:
    """Parameters for the next request.  ``batch_size``, which i-PI appends itself, is taken out."""

    replica: int  # bead index
    parameters: dict[str, str]
    batch_size: int = 1


@dataclass(frozen=True, eq=False)
class PosData:
    """Structures to evaluate; B = 1 unless INIT announced a batch."""

    positions: np.ndarray  # (B, N, 3) bohr
    cells: np.ndarray  # (B, 3, 3) bohr, rows are the lattice vectors


@dataclass(frozen=True)
class SharedPosData:
    """Structures to evaluate stand in shared memory (``mode='shm'``)."""

    names: tuple[str, ...]  # of i-PI's six segments: pos, h, ih, pot, force, vir
    batch_size: int


@dataclass(frozen=True)
class GetForce:
    """i-PI wants the result; answer with ``encode_forces``."""


@dataclass(frozen=True)
class Exit:
    """i-PI says goodbye."""


@dataclass(frozen=True)
class Challenge:
    """The server wants the run's secret proved; answer with ``encode_proof``."""

    nonce: bytes


@dataclass(frozen=True)
class Refused:
    """The server knows another secret, and hangs up."""


Event = Status | Init | PosData | SharedPosData | GetForce | Exit | Challenge | Refused
_Parsed = tuple[Event, int]  # an event and the bytes it took; None: some are missing

# The whole state machine: state × message → next state.  What is not here is an error of the wire.
TRANSITIONS = {
    State.NEEDINIT: {
        "STATUS": State.NEEDINIT,
        "INIT": State.READY,
        "EXIT": State.CLOSED,
        "CHALLENGE": State.NEEDINIT,
        "REFUSED": State.CLOSED,
    },
    State.READY: {
        "STATUS": State.READY,
        "POSDATA": State.HAVEDATA,
        "EXIT": State.CLOSED,
    },
    State.HAVEDATA: {
        "STATUS": State.HAVEDATA,
        "GETFORCE": State.NEEDINIT,  # not READY: the next request brings its own λ
        "EXIT": State.CLOSED,
    },
}


def _header(name: str) -> bytes:
    return name.ljust(HEADER).encode("ascii")


_NAMES = {_header(name): name for name in ("STATUS", "INIT", "POSDATA", "GETFORCE", "EXIT")}
_NAMES |= {CHALLENGE: "CHALLENGE", REFUSED: "REFUSED"}


class Decoder:
    """Turns the byte stream from i-PI into events and keeps the client's state.

    Nothing is allocated on the word of a length field: the atom count must equal ``n_atoms``, an
    INIT string has a limit, and the buffer holds only bytes that did arrive.  With
    ``shared_memory``, POSDATA brings names of segments instead of numbers.  A ``session`` that is
    set after a Challenge hears all that follows it.
    """

    session: Session | None = None

    def __init__(self, n_atoms: int, shared_memory: bool = False):
        self.n_atoms = n_atoms
        self._shared_memory = shared_memory
        self._segments: tuple[str, ...] | None = None
        self.state = State.NEEDINIT
        self._batch_size = 1
        self._buffer = bytearray()
        self._error: str | None = None

    def feed(self, data: bytes) -> None:
        """Append received bytes.  Pull all events before feeding more."""
        self._buffer += data

    def next_event(self) -> Event | None:
        """The next complete event, or None if more bytes are needed (or EXIT has come)."""
        if self._error:
            raise WireError(self._error)
        if self.state is State.CLOSED or len(self._buffer) < HEADER:
            return None
        header = bytes(self._buffer[:HEADER])
        name = _NAMES.get(header)
        if name is None:
            known = ", ".join(_NAMES.values())
            self._fail(f"expected an i-PI message ({known}), got the bytes {header!r}")
        if name not in TRANSITIONS[self.state]:
            allowed = ", ".join(TRANSITIONS[self.state])
            self._fail(f"expected one of {allowed} in state {self.state.value}, got {name}")

        parsed: _Parsed | None
        if name == "INIT":
            parsed = self._parse_init()
        elif name == "POSDATA":
            parsed = self._parse_shared() if self._shared_memory else self._parse_posdata()
        elif name == "STATUS":
            parsed = Status(self.state), HEADER
        elif name == "GETFORCE":
            parsed = GetForce(), HEADER
        elif name == "CHALLENGE":
            parsed = self._parse_challenge()
        elif name == "REFUSED":
            parsed = Refused(), HEADER
        else:
            parsed = Exit(), HEADER
        if parsed is None:
            return None
        event, taken = parsed
        if self.session is not None:
            self.session.said(bytes(self._buffer[:taken]))
        del self._buffer[:taken]
        self.state = TRANSITIONS[self.state][name]
        return event

    def _parse_challenge(self) -> _Parsed | None:
        end = HEADER + NONCE
        return (
            (Challenge(bytes(self._buffer[HEADER:end])), end) if len(self._buffer) >= end else None
        )

    def _parse_init(self) -> _Parsed | None:
        # header, int32 replica, int32 length, text
        start = HEADER + _TWO_INTS.size
        if len(self._buffer) < start:
            return None
        replica, length = _TWO_INTS.unpack_from(self._buffer, HEADER)
        if not 0 <= length <= MAX_INIT:
            self._fail(f"expected an INIT string of 0 to {MAX_INIT} bytes, got length {length}")
        if len(self._buffer) < start + length:
            return None
        raw = bytes(self._buffer[start : start + length])
        # i-PI counts characters but sends UTF-8 bytes: after anything else the stream is out of
        # step.  The first non-ASCII byte always lies within the counted part.
        if not raw.isascii():
            self._fail("expected ASCII in the INIT string: keep <parameters> free of other letters")
        try:
            parameters = parse_parameters(raw.decode("ascii"))
        except WireError as error:
            self._fail(str(error))
        batch = parameters.pop("batch_size", "1")
        if not (batch.isdigit() and 1 <= int(batch) <= MAX_BATCH):
            self._fail(f"expected a batch_size of 1 to {MAX_BATCH}, got {batch!r}")
        self._batch_size = int(batch)
        return Init(replica, parameters, self._batch_size), start + length

    def _parse_posdata(self) -> _Parsed | None:
        # single:  header, [cell, inverse], int32 N, positions
        # batched: header, int32 N, B × [cell, inverse], B × positions
        b, n = self._batch_size, self.n_atoms
        if b == 1:
            cells, count = HEADER, HEADER + _CELLS
            positions = count + _INT.size
        else:
            count, cells = HEADER, HEADER + _INT.size
            positions = cells + b * _CELLS
        if len(self._buffer) < count + _INT.size:
            return None
        (got,) = _INT.unpack_from(self._buffer, count)
        if got != n:
            self._fail(
                f"expected {n} atoms, i-PI announces {got}: "
                "give client and server the same input, the mode of <ffsocket> included"
            )
        end = positions + b * n * 3 * _DOUBLE
        if len(self._buffer) < end:
            return None
        # i-PI's h has the lattice vectors as columns.  The inverse cell that follows is not needed.
        h = np.frombuffer(bytes(self._buffer[cells : cells + b * _CELLS])).reshape(b, 2, 3, 3)[:, 0]
        x = np.frombuffer(bytes(self._buffer[positions:end])).reshape(b, n, 3)
        return PosData(positions=x, cells=h.transpose(0, 2, 1)), end

    def _parse_shared(self) -> _Parsed | None:
        # header, int32 N, and in the first of a connection 6 × [int32 length, name]
        at = HEADER + _INT.size
        if len(self._buffer) < at:
            return None
        (got,) = _INT.unpack_from(self._buffer, HEADER)
        if got != self.n_atoms:
            self._fail(f"expected {self.n_atoms} atoms, i-PI announces {got} (mode='shm')")
        names = self._segments
        if names is None:
            found = []
            for _ in range(SEGMENTS):
                if len(self._buffer) < at + _INT.size:
                    return None
                (length,) = _INT.unpack_from(self._buffer, at)
                if not 0 < length <= MAX_NAME:
                    self._fail(f"expected a name of 1 to {MAX_NAME} bytes, got length {length}")
                at += _INT.size
                if len(self._buffer) < at + length:
                    return None
                raw = bytes(self._buffer[at : at + length])
                if not _SEGMENT_NAME.fullmatch(raw):
                    self._fail(f"expected the name of a shared memory segment, got {raw!r}")
                found.append(raw.decode("ascii"))
                at += length
            names = self._segments = tuple(found)
        return SharedPosData(names, self._batch_size), at

    def _fail(self, message: str) -> NoReturn:
        self._error = message  # the stream is out of step for good
        self._buffer.clear()
        raise WireError(message)


def parse_parameters(text: str) -> dict[str, str]:
    """``" key : value , key : value , "`` → ``{key: value}``.

    A key ends at its first colon, so values may contain colons; commas separate entries and cannot
    be part of a value.  i-PI reads ``<parameters>`` as Python literals and sends ``str(value)``:
    0.30 arrives as ``0.3``, and a hexadecimal digest such as 12e4 as ``120000.0``.
    """
    parameters: dict[str, str] = {}
    for entry in text.split(","):
        if not entry.strip():
            continue
        key, colon, value = (part.strip() for part in entry.partition(":"))
        if not (key and colon):
            raise WireError(f"expected 'key : value' in the INIT string, got {entry.strip()!r}")
        if key in parameters:
            raise WireError(f"expected each INIT parameter once, got {key!r} twice")
        parameters[key] = value
    return parameters


@dataclass(frozen=True, eq=False)
class Reply:
    """Result for one structure, atomic units."""

    energy: float  # hartree
    forces: np.ndarray  # (N, 3) hartree/bohr
    virial: np.ndarray  # (3, 3) hartree, −∂E/∂ε with ε acting on column vectors
    extras: bytes = b""  # JSON object


def encode_status(state: State) -> bytes:
    """The answer to STATUS."""
    if state is State.CLOSED:
        raise WireError("expected no STATUS after EXIT")
    return _header(state.value)


def encode_proof(nonce: bytes, proof: bytes) -> bytes:
    """The answer to CHALLENGE: our nonce, and what only they can compute who know the secret."""
    return PROOF + nonce + proof


def encode_forces(replies: Sequence[Reply]) -> bytes:
    """The answer to GETFORCE, one reply per structure of the POSDATA.

    FORCEREADY, B energies, N, B × forces, B × virial, B × (length, extras); with B = 1 this is also
    the layout without batches.
    """
    n = len(replies[0].forces)
    parts = [_header("FORCEREADY"), _doubles([r.energy for r in replies]), _INT.pack(n)]
    parts += [_doubles(r.forces, (n, 3)) for r in replies]
    parts += [_doubles(r.virial, (3, 3)) for r in replies]
    for r in replies:
        parts += [_INT.pack(len(r.extras)), r.extras]
    return b"".join(parts)


def encode_shared(replies: Sequence[Reply]) -> bytes:
    """The answer to GETFORCE where the numbers stand in shared memory: FORCEREADY and B ×
    (length, extras)."""
    parts = [_header("FORCEREADY")]
    for r in replies:
        parts += [_INT.pack(len(r.extras)), r.extras]
    return b"".join(parts)


def encode_extras(values: Mapping[str, object]) -> bytes:
    """One JSON object; floats keep all their digits.  i-PI reserves the key ``raw``."""
    if "raw" in values:
        raise WireError("expected extras without the key 'raw', which i-PI uses itself")
    try:
        return json.dumps(dict(values), allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise WireError(f"expected extras that JSON can hold: {error}") from None


def _doubles(values: ArrayLike, shape: tuple[int, ...] | None = None) -> bytes:
    array = np.asarray(values, dtype=np.float64)
    if shape is not None and array.shape != shape:
        raise WireError(f"expected an array of shape {shape} to send, got {array.shape}")
    return array.tobytes()  # C order whatever the layout in memory
