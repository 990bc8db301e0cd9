"""Rows of numbers from long text files, in pieces: few seconds and little memory for 10⁶ rows.

i-PI writes numbers as ``%24.16e``, so whole pieces of its files have rows of one width.  Such a
piece is a table of bytes, and its columns are read by arithmetic on them, to the same bits as
``float``.  A piece that is not so regular (torn, resumed, with another format, with nan) is left to
the caller's own parser.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import AnalysisError

PIECE = 1 << 20  # bytes; what is made of it stays in the processor's caches
WIDTH = 24  # of a number
_TEN = 10.0 ** np.arange(23)  # exact in double precision
_SPLIT = 134217729.0  # 2^27 + 1, Dekker 1971
_NEWLINE = ord("\n")
_ZERO = ord("0")
_MANTISSA = (1 << 52) - 1
_EXPONENT = 0x7FF << 52


# --- files in pieces ----------------------------------------------------------------------------


def pieces(path: Path, begins: bytes = b"") -> Iterator[bytes]:
    """The content of *path*, or of *path*.gz, in pieces of whole lines.

    begins: what a record of several lines starts with; no piece ends inside a record.  The last
    piece is what remains, torn or not.  A truncated gzip file gives what can be read.  Raises
    AnalysisError for a file that cannot be read.
    """
    plain, packed = Path(path), Path(f"{path}.gz")
    found = plain if plain.is_file() or not packed.is_file() else packed
    rest = b""
    try:
        with open(found, "rb") as file:
            for data in _content(file):
                rest += data
                cut = rest.rfind(begins) if begins else rest.rfind(b"\n") + 1
                if cut > 0:
                    yield rest[:cut]
                    rest = rest[cut:]
    except OSError as err:
        raise AnalysisError(f"{plain} cannot be read: {err.strerror}") from None
    except zlib.error:
        raise AnalysisError(f"{found} is a damaged gzip file: pack it again") from None
    if rest:
        yield rest


def _content(file: BinaryIO) -> Iterator[bytes]:
    data = file.read(PIECE)
    if data[:2] != b"\x1f\x8b":
        while data:
            yield data
            data = file.read(PIECE)
        return
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    while data:
        found = unpack.decompress(data, PIECE)
        if found:
            yield found
        data = unpack.unconsumed_tail
        if unpack.eof:  # another member may follow
            data = unpack.unused_data
            unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        data = data or file.read(PIECE)


# --- numbers ------------------------------------------------------------------------------------


def numbers(text: np.ndarray) -> np.ndarray | None:
    """The values (m,) of *text* (m, 24) bytes, each as ``%24.16e`` writes it; None if one is not.

    Bit for bit what ``float`` gives: the 17 digits are a sum of two doubles, exactly; their
    quotient by a power of ten (exact up to 10²²) is rounded once, by its remainder.  Where that is
    too near to the middle between two doubles, and for other powers, ``float`` decides.
    """
    c = np.ascontiguousarray(text.T)  # [character, row]
    negative, shrinks = c[1] == ord("-"), c[21] == ord("-")
    if not (
        (c[0] == ord(" ")).all()
        and (negative | (c[1] == ord(" "))).all()
        and (c[3] == ord(".")).all()
        and (c[20] == ord("e")).all()
        and (shrinks | (c[21] == ord("+"))).all()
    ):
        return None
    first, digits, exponents = c[2] - _ZERO, c[4:20] - _ZERO, c[22:24] - _ZERO  # below '0': wraps
    if max(int(x.max(initial=0)) for x in (first, digits, exponents)) > 9:
        return None
    two = digits[0::2] * np.uint8(10) + digits[1::2]
    four = two[0::2] * np.uint16(100) + two[1::2]
    eight = four[0::2] * np.uint32(10000) + four[1::2]
    whole = 1e8 * (first * 1e8 + eight[0])  # exact: below 2^53 times a power of two
    low = eight[1].astype(float)
    exponent = (exponents[0] * np.uint8(10) + exponents[1]).astype(np.int64)
    power = 16 - np.where(shrinks, -exponent, exponent)  # digits / 10^power
    simple = (power >= 0) & (power < len(_TEN))
    ten = _TEN[np.where(simple, power, 0)]
    s = whole + low
    t = low - (s - whole)
    q = s / ten
    r = ((s - q * ten) - _product_error(q, ten) + t) / ten
    value = q + r
    bits = value.view(np.int64)
    middle = (bits & _EXPONENT).view(float) * 2.0**-53  # half a step between doubles
    off = r - (value - q)
    doubtful = (np.abs(np.abs(off) - middle) < 1e-6 * middle) | (
        ((bits & _MANTISSA) == 0) & (off < 0.0)  # below a power of two steps are smaller
    )
    for k in np.flatnonzero((doubtful | ~simple) & (s != 0.0)):
        value[k] = abs(float(text[k].tobytes()))
    signed: np.ndarray = np.where(negative, -value, value)
    return signed


def _product_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a b − fl(a b), exactly; Dekker 1971."""
    c, d = _SPLIT * a, _SPLIT * b
    a1, b1 = c - (c - a), d - (d - b)
    a2, b2 = a - a1, b - b1
    error: np.ndarray = ((a1 * b1 - a * b) + a1 * b2 + a2 * b1) + a2 * b2
    return error


def whole_numbers(text: np.ndarray) -> np.ndarray | None:
    """Numbers (m,) without sign from *text* (m, w) bytes, filled up with blanks at the left."""
    c = np.ascontiguousarray(text.T)
    blank = c == ord(" ")
    digits = np.where(blank, np.uint8(0), c - _ZERO)
    if digits.max(initial=0) > 9 or (blank[1:] & ~blank[:-1]).any() or blank[-1].any():
        return None
    value = np.zeros(len(text), dtype=np.int64)
    for digit in digits:
        value = 10 * value + digit
    return value


# --- regular pieces -----------------------------------------------------------------------------


def table(piece: bytes, lines: int = 1) -> np.ndarray | None:
    """*piece* as (m, width) bytes, if it consists of records of one width and so many lines."""
    at = -1
    for _ in range(lines):
        at = piece.find(b"\n", at + 1)
        if at < 0:
            return None
    width = at + 1
    if len(piece) % width:
        return None
    data = np.frombuffer(piece, dtype=np.uint8).reshape(-1, width)
    first = np.flatnonzero(data[0] == _NEWLINE)
    if piece.count(b"\n") != lines * len(data) or not (data[:, first] == _NEWLINE).all():
        return None
    return data


def columns(piece: bytes, count: int, wanted: list[int]) -> list[np.ndarray] | None:
    """Columns *wanted* of a piece whose rows are *count* numbers; None if it is not regular."""
    data = table(piece)
    if data is None:
        return None
    words = data[0].tobytes().split()
    if len(words) != count:
        return None
    ends, at = [], 0
    for word in words:
        at = piece.index(word, at) + len(word)
        ends.append(at)
    if any(end < WIDTH for end in ends):
        return None
    # a blank before every number, so that none has run into the next
    found = [numbers(data[:, ends[k] - WIDTH : ends[k]]) for k in wanted]
    return None if any(x is None for x in found) else [x for x in found if x is not None]


def records(piece: bytes, head: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps and values of records ``<head>  <step> \\n<value>\\n``; None if not all are such."""
    data = table(piece, lines=2)
    if data is None or not piece.startswith(head):
        return None
    first = piece.index(b"\n")
    if data.shape[1] != first + 2 + WIDTH or first < len(head) + 2:
        return None
    if not (data[:, : len(head)] == data[0, : len(head)]).all():
        return None
    if not (data[:, first - 1] == ord(" ")).all():
        return None
    steps = whole_numbers(data[:, len(head) : first - 1])
    values = numbers(data[:, first + 1 : -1])
    return None if steps is None or values is None else (steps, values)
