"""i-PI output files → records: property files and extras, plain or gzipped.

i-PI appends to its files when a run is resumed, so a step may stand twice: the later branch counts
and everything of the earlier one from that step on is dropped.  A kill may tear a row; what is
torn is dropped, and if no resumed branch supplied it again the gap is an error.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ... import units
from ...contract.run_input import ExtrasFile, RunInput
from ...errors import AnalysisError, did_you_mean
from . import rows

_HEADER = re.compile(r"^#\s*(?:column|cols\.)\s+(\d+)(?:-(\d+))?\s*-->\s*(\S+)")
_NAME = re.compile(r"^([\w\-.:]+)(?:\(.*?\))?(?:\{([^}]*)\})?")
_EXTRAS = re.compile(r"#EXTRAS\(([^()#]*)\)#\s*Step:\s*(\d+)[ ]*\n\s*([^\s#]+)[ ]*\n")
# Multiples of 1 eV, with i-PI's own constants
_ENERGY = {
    "electronvolt": 1.0,
    "millielectronvolt": 1e-3,
    "kelvin": units.KB_EV,
    "": 1.0 / units.ELECTRONVOLT,
    "atomic_unit": 1.0 / units.ELECTRONVOLT,
}


@dataclass(frozen=True)
class PropertySeries:
    """The rows of one property file, in the units that its header names."""

    path: Path
    steps: np.ndarray  # (n,) MD steps
    columns: Mapping[str, np.ndarray]  # by name without unit: (n,), or (n, size) for several
    units: Mapping[str, str]  # by name; '' stands for atomic units or for a pure number

    def column(self, name: str) -> np.ndarray:
        """Raises AnalysisError if the file has no such column."""
        if name not in self.columns:
            raise AnalysisError(
                f"{self.path}: no column '{name}'{did_you_mean(name, self.columns)}; "
                f"it has {', '.join(self.columns)}"
            )
        return self.columns[name]

    def energy(self, name: str) -> np.ndarray:
        """A column of energies, in eV."""
        values, unit = self.column(name), self.units.get(name, "")
        if unit not in _ENERGY:
            raise AnalysisError(
                f"{self.path}: unit '{unit}' of '{name}' is not an energy known here; "
                f"expected one of {', '.join(u for u in _ENERGY if u)}"
            )
        return values * _ENERGY[unit]


@dataclass(frozen=True)
class ExtrasSeries:
    """One key of the extras, for every bead, as printed (atomic units)."""

    path: Path  # file name as in the input, without the bead
    key: str
    steps: np.ndarray  # (n,) MD steps
    values: np.ndarray  # (n, beads)


@dataclass(frozen=True)
class GradientSeries:
    """∂H/∂λ along a run; row k belongs to λ(steps[k])."""

    path: Path
    steps: np.ndarray  # (n,) MD steps
    lam: np.ndarray  # (n,) dimensionless
    dHdlambda: np.ndarray  # (n, beads) eV

    @property
    def mean(self) -> np.ndarray:
        """Mean over beads, (n,) eV."""
        mean: np.ndarray = self.dHdlambda.mean(axis=1)
        return mean


# --- files --------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """What is in *path*, or in *path*.gz; a truncated gzip file gives what can be read."""
    plain, packed = Path(path), Path(f"{path}.gz")
    found = plain if plain.is_file() or not packed.is_file() else packed
    try:
        data = found.read_bytes()
    except OSError as err:
        raise AnalysisError(f"{plain} cannot be read: {err.strerror}") from None
    return _gunzip(data, found) if data[:2] == b"\x1f\x8b" else data


def read_text(path: Path) -> str:
    """The text of *path*, or of *path*.gz; see :func:`read_bytes`."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        raise AnalysisError(f"{path} is not a text file") from None


def _gunzip(data: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError:  # torn like the last line of a plain file
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data)
    except (OSError, zlib.error):
        raise AnalysisError(f"{path} is a damaged gzip file: pack it again") from None


def last_branch(steps: np.ndarray) -> np.ndarray:
    """Which rows belong to the last branch of a resumed run, (n,) bool.

    A row is superseded as soon as a later row has the same step or an earlier one.
    """
    if len(steps) == 0:
        return np.zeros(0, dtype=bool)
    later = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.iinfo(np.int64).max)
    return steps < later


def check_rows(path: Path, steps: np.ndarray, values: np.ndarray, stride: int) -> None:
    """Every *stride*-th step from 0 on, all numbers finite; AnalysisError naming file and step."""
    if len(steps) == 0:
        raise AnalysisError(f"{path} has no complete row: has the run started?")
    expected = np.arange(len(steps)) * stride
    if (steps != expected).any():
        k = int(np.argmax(steps != expected))
        raise AnalysisError(f"{path}: expected step {expected[k]}, found step {steps[k]}: a gap")
    bad = ~np.isfinite(values.reshape(len(steps), -1)).all(axis=1)
    if bad.any():
        raise AnalysisError(
            f"{path}: step {steps[np.argmax(bad)]} holds a number that is not "
            "finite: the run is broken from there on"
        )


# --- property files -----------------------------------------------------------------------------


class Header:
    """The columns of a property file, as its own lines name them."""

    def __init__(self) -> None:
        self.columns: dict[str, slice] = {}  # by name without unit
        self.units: dict[str, str] = {}  # by name; '' stands for atomic units or a pure number
        self.width = 0

    def add(self, line: str) -> None:
        """Take in a line that begins with '#'."""
        match = _HEADER.match(line)
        if match is None or not line.endswith("\n"):
            return
        first, last = int(match[1]), int(match[2] or match[1])
        if last <= self.width:
            return  # a header repeated by a resumed run
        name = _NAME.match(match[3])
        key = name[1] if name and name[1] not in self.columns else match[3]
        self.columns[key] = slice(first - 1, last)
        self.units[key] = (name[2] or "") if name else ""
        self.width = last

    def row(self, line: str) -> list[str] | None:
        """The words of a line of numbers; None if it is torn."""
        words = line.split()
        if not words or not line.endswith("\n") or len(words) < self.width or "#" in line:
            return None  # a torn row may be glued to a repeated header
        return words[-self.width :]  # what is torn may be glued to the front of a resumed row


def read_properties(
    path: Path, stride: int = 1, names: Collection[str] | None = None
) -> PropertySeries:
    """An i-PI property file; columns and units come from its own header.

    *stride* is what the input asks for; *names*: the columns to read, as far as they are there, by
    default all.  Raises AnalysisError for a file without header, without a 'step' column, with a
    gap, or with a number that is not finite.
    """
    path = Path(path)
    header = Header()
    parts: list[np.ndarray] = []
    for piece in rows.pieces(path):
        data = piece
        while data.startswith(b"#"):
            line, _, data = data.partition(b"\n")
            header.add(_decoded(line + b"\n", path) if data or piece.endswith(b"\n") else "")
        if data and not header.columns:
            break
        if data:
            found = rows.columns(data, header.width, _wanted(header, names))
            parts.append(
                _rows_of(data, header, names, path) if found is None else np.stack(found, axis=1)
            )
    if not header.columns:
        raise AnalysisError(f"{path} has no i-PI header ('# column 1 --> step …')")
    if "step" not in header.columns:
        raise AnalysisError(f"{path} has no 'step' column: add it to <properties>")
    at = _wanted(header, names)
    table = np.concatenate(parts) if parts else np.zeros((0, len(at)))
    del parts
    counter = table[:, at.index(header.columns["step"].start)]
    if not np.isfinite(counter).all():
        raise AnalysisError(f"{path}: row {int(np.argmax(~np.isfinite(counter)))} has no step")
    steps = np.rint(counter).astype(np.int64)
    kept = last_branch(steps)
    if not kept.all():
        steps, table = steps[kept], table[kept]
    check_rows(path, steps, table, stride)
    columns = {}
    for name, where in header.columns.items():
        if names is None or name in names:
            mine = [at.index(k) for k in range(where.start, where.stop)]
            columns[name] = table[:, mine[0]] if len(mine) == 1 else table[:, mine]
    return PropertySeries(path, steps, columns, header.units)


def _wanted(header: Header, names: Collection[str] | None) -> list[int]:
    """Numbers of the columns to read; the steps always."""
    return [
        k
        for name, where in header.columns.items()
        if names is None or name in names or name == "step"
        for k in range(where.start, where.stop)
    ]


def _rows_of(piece: bytes, header: Header, names: Collection[str] | None, path: Path) -> np.ndarray:
    """Columns of a piece that is not regular, row by row; torn rows are left out."""
    found: list[list[str]] = []
    for line in _decoded(piece, path).splitlines(keepends=True):
        if line.startswith("#"):
            header.add(line)
            continue
        row = header.row(line)
        if row is not None:
            found.append(row)
    try:
        table = np.array(found, dtype=float).reshape(-1, header.width)
    except ValueError:
        raise AnalysisError(f"{path}: {_first_bad(found)}") from None
    return table[:, _wanted(header, names)]


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise AnalysisError(f"{path} is not a text file") from None


def _first_bad(rows: list[list[str]]) -> str:
    for row in rows:
        for word in row:
            try:
                float(word)
            except ValueError:
                return f"expected a number, got '{word}' in the row that starts with {row[0]}"
    return "rows of different lengths"


# --- extras -------------------------------------------------------------------------------------


def bead_paths(path: Path, beads: int) -> list[Path]:
    """i-PI's file names: ``path_0``, or zero-padded to the digits of *beads*."""
    digits = int(1 + np.floor(np.log(beads) / np.log(10)))  # i-PI's formula, rounding included
    return [path.with_name(f"{path.name}_{b:0{digits}d}") for b in range(beads)]


def read_extras(path: Path, key: str, beads: int = 1, stride: int = 1) -> ExtrasSeries:
    """One numeric key of the extras, one file per bead; values as printed, in atomic units.

    Files that end at different steps (a killed run) are cut to what all beads have.  Raises
    AnalysisError for a missing file, a gap, another key, or a number that is not finite.
    """
    path = Path(path)
    per_bead = [_read_extras_file(p, key, stride) for p in bead_paths(path, beads)]
    n = min(len(steps) for steps, _ in per_bead)
    values = np.stack([v[:n] for _, v in per_bead], axis=1)  # [k, b]
    return ExtrasSeries(path, key, per_bead[0][0][:n], values)


def _read_extras_file(path: Path, key: str, stride: int) -> tuple[np.ndarray, np.ndarray]:
    head = f" #EXTRAS({key})# Step: ".encode()
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    words: dict[int, str] = {}  # what is no number, by row
    count = 0
    for piece in rows.pieces(path, begins=b" #EXTRAS("):
        found = rows.records(piece, head)
        if found is None:
            found = _records_of(piece, key, path, count, words)
        parts.append(found)
        count += len(found[0])
    steps = np.concatenate([s for s, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
    values = np.concatenate([v for _, v in parts]) if parts else np.zeros(0)
    del parts
    kept = last_branch(steps)
    wrong = next((k for k in words if kept[k]), None)
    if wrong is not None:
        raise AnalysisError(
            f"{path}: expected a number at step {steps[wrong]}, got '{words[wrong]}'"
        )
    if not kept.all():
        steps, values = steps[kept], values[kept]
    check_rows(path, steps, values, stride)
    return steps, values


def _records_of(
    piece: bytes, key: str, path: Path, first: int, words: dict[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a piece that is not regular; *words* takes what is no number."""
    blocks = _EXTRAS.findall(_decoded(piece, path))
    other = next((found for found, _, _ in blocks if found != key), None)
    if other is not None:
        raise AnalysisError(f"{path} holds extras '{other}', expected '{key}'")
    values = np.full(len(blocks), np.nan)
    for k, (_, _, word) in enumerate(blocks):
        try:
            values[k] = float(word)
        except ValueError:
            words[first + k] = word
    return np.array([int(step) for _, step, _ in blocks], dtype=np.int64), values


def _extras_file(run: RunInput, key: str) -> ExtrasFile | None:
    return next((e for e in run.extras if e.key == key), None)


def read_gradients(run: RunInput) -> GradientSeries:
    """∂H/∂λ of a run in eV, each row with its λ.

    i-PI prints the initial state as step 0, so the row of step k belongs to λ(k).  If the input
    also prints the extras 'lambda' (what the clients really used), they must agree with the
    schedule to 1e-12.  Raises AnalysisError.
    """
    wanted = _extras_file(run, "dHdlambda")
    if wanted is None:
        raise AnalysisError(
            f"{run.path} prints no dHdlambda: add <trajectory filename='dHdlambda' "
            "extra_type='dHdlambda'> extras </trajectory>"
        )
    path = run.output(wanted.filename)
    series = read_extras(path, "dHdlambda", run.beads, wanted.stride)
    lam = run.lam_along(series.steps)
    printed = _extras_file(run, "lambda")
    if printed is not None:
        check_lambda(
            run, read_extras(run.output(printed.filename), "lambda", run.beads, printed.stride)
        )
    return GradientSeries(path, series.steps, lam, series.values / units.ELECTRONVOLT)


def check_lambda(run: RunInput, series: ExtrasSeries) -> None:
    """Raise AnalysisError where the λ that clients used is not the schedule's."""
    expected = run.lam_along(series.steps)
    off = np.abs(series.values - expected[:, None]).max(axis=1) > 1e-12
    if off.any():
        k = int(np.argmax(off))
        raise AnalysisError(
            f"{series.path}: lambda is {series.values[k].tolist()} at step {series.steps[k]}, the "
            f"schedule says {expected[k]!r}: the outputs belong to another input or are a step off"
        )


def read_conserved(run: RunInput) -> PropertySeries | None:
    """The property file that holds 'conserved', or None if the input prints none.

    Of its columns those that the analysis looks at: conserved, temperature, volume, and the
    pressure of a run at constant pressure.
    """
    wanted = ["step", "conserved", "temperature", "volume"]
    if run.constant_pressure:
        wanted += ["pressure_md", "pressure_cv"]
    for output in run.properties:
        names = [match[1] for c in output.columns if (match := _NAME.match(c))]
        if "conserved" in names and "step" in names:
            path = run.output(output.filename)
            found = path if path.is_file() else Path(f"{path}.gz")
            stat = found.stat() if found.is_file() else None
            state = None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            return _conserved(path, output.stride, tuple(wanted), state)
    return None


@lru_cache(maxsize=1)  # the same run's is asked for by several checks, one after the other
def _conserved(
    path: Path, stride: int, names: tuple[str, ...], state: tuple[int, int, int] | None
) -> PropertySeries:
    series = read_properties(path, stride, names)
    for values in (series.steps, *series.columns.values()):
        values.flags.writeable = False
    return series


def volumes(run: RunInput) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps and volumes (Å³) of a run; None if constant or not printed beside 'conserved'."""
    series = read_conserved(run)
    if series is None or series.units.get("volume") != "angstrom3":
        return None
    volume = series.columns["volume"]
    return (series.steps, volume) if len(volume) and np.ptp(volume) > 0.0 else None
