"""Records in JSON files: frozen dataclasses that read and write themselves.

What a file may hold is said once, by the annotations of its record, and checked when it is read:

| annotation                         | in the file                          |
|------------------------------------|--------------------------------------|
| ``bool``, ``int``, ``str``         | that, and nothing that resembles it  |
| ``float``                          | a finite number                      |
| ``X | None``                       | null, or X                           |
| ``Literal['a', 'b']``, ``OneOf``   | one of these words                   |
| ``tuple[X, ...]``, ``tuple[X, Y]`` | a list                               |
| ``dict[K, X]``                     | an object                            |
| ``Annotated[ndarray, Shape('n')]`` | lists of numbers; see :class:`Shape` |
| ``Path``                           | text                                 |
| a dataclass                        | an object with its fields as keys    |
| ``Annotated[X, Must(…)]``          | an X for which that holds            |

A file that is wrong gives one line: file, key, what was expected, what stands there, what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from ..errors import AlchemdriverError, InputError, did_you_mean
from .files import read_json, write_json

T = TypeVar("T")
R = TypeVar("R")

_LARGEST = 1e60  # in any unit; its square is finite still
_DEEPEST = 3  # axes of an array


# --- what annotations may say -------------------------------------------------------------------


@dataclass(frozen=True)
class Must:
    """A condition on a value, and how to say it: 'expected *what*'."""

    what: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class OneOf:
    """A word of a list that is not known to the type checker."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """Axes of an array, such as 'n 3': equal names within one record have equal lengths."""

    axes: str


Count = Annotated[int, Must("a whole number of at least 1", lambda n: n >= 1)]
Index = Annotated[int, Must("a whole number of at least 0", lambda n: n >= 0)]
Positive = Annotated[float, Must("a positive number", lambda x: x > 0)]
NotNegative = Annotated[float, Must("a number of at least 0", lambda x: x >= 0)]
Kelvin = Annotated[float, Must("a positive number of K", lambda x: x > 0)]


@dataclass(frozen=True)
class InMemory:
    """A field that is not in the file; a record that was read has what *instead* makes there."""

    instead: Callable[[], Any]


@dataclass(frozen=True)
class Called:
    """A field that has another name in the file."""

    key: str


@dataclass(frozen=True)
class IfKnown:
    """A field that is not in the file where it is None."""


def no_rows() -> np.ndarray:
    """For time series that are not in the file."""
    return np.zeros(0)


# --- files --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format(Generic[T]):
    """One kind of file.

    by_hand   people edit it: an unknown key is an error, with a suggestion.  In other files it is
              passed over: a later version may add keys to a schema, but neither remove one nor
              change what it means; for that the number of the schema goes up, and a file with
              another number is refused.
    unsigned  files from before there was a schema in them are read as being of this one
    """

    schema: str  # such as 'alchemdriver-result/1'
    record: type[T]
    remedy: str  # what to do about a file that is wrong
    by_hand: bool = False
    unsigned: bool = False
    error: type[AlchemdriverError] = InputError

    def read(self, path: Path) -> T:
        """Raises ``error``, one line, for a file that cannot be read or is not of this format."""
        try:
            data = read_json(path)
        except InputError as err:
            raise self.error(str(err)) from None
        if not isinstance(data, dict):
            raise self.error(f"{path}: expected an object, got {_shown(data)}: {self.remedy}")
        found = data.pop("schema", self.schema if self.unsigned else None)
        if found != self.schema:
            got = "none" if found is None else _shown(found)
            raise self.error(
                f"{path}: expected schema {self.schema}, got {got}: another kind of file, or of "
                "another version of alchemdriver"
            )
        return self.load(path, self.record, data)

    def load(self, path: Path, record: type[R], data: Any, at: str = "") -> R:
        """*data*, which stands in *path* at the key *at*, as *record*."""
        try:
            return cast(R, _value(record, data, at, self.by_hand, {}))
        except _Wrong as wrong:
            raise self.error(f"{path}: {wrong}: {self.remedy}") from None

    def write(self, path: Path, value: T, about: Mapping[str, Any] | None = None) -> None:
        """about: what else goes into the file, after the schema; not read back."""
        write_json(path, {"schema": self.schema, **(about or {}), **dump(value)})


def dump(value: Any) -> Any:
    """Records, arrays and paths as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.key: dump(getattr(value, f.name))
            for f in _fields_of(type(value))
            if f.instead is None and not (f.if_known and getattr(value, f.name) is None)
        }
    if isinstance(value, dict):
        return {str(k): dump(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [dump(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def check(record: object) -> None:
    """Raises InputError where the values of *record* are not what its annotations say."""
    try:
        kind: type = type(record)
        for f in _fields_of(kind):
            if f.instead is None:
                _value(f.kind, dump(getattr(record, f.name)), f.key, True, {})
    except _Wrong as wrong:
        raise InputError(str(wrong)) from None


# --- reading ------------------------------------------------------------------------------------


class _Wrong(Exception):
    def __init__(self, at: str, expected: str, got: Any = MISSING, hint: str = ""):
        got = "" if got is MISSING else f", got {_shown(got)}"
        super().__init__(f"{at}{': ' if at else ''}{expected}{got}{hint}")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)  # ASCII: whatever stands in a file can be printed
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class _Field:
    name: str
    key: str  # in the file
    kind: Any  # its annotation
    required: bool
    if_known: bool
    instead: Callable[[], Any] | None  # None: it is in the file


@cache
def _fields_of(record: type) -> tuple[_Field, ...]:
    hints = get_type_hints(record, include_extras=True)
    found = []
    for f in fields(record):
        kind = hints[f.name]
        marks = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
        found.append(
            _Field(
                f.name,
                next((m.key for m in marks if isinstance(m, Called)), f.name),
                kind,
                f.default is MISSING and f.default_factory is MISSING,
                any(isinstance(m, IfKnown) for m in marks),
                next((m.instead for m in marks if isinstance(m, InMemory)), None),
            )
        )
    return tuple(found)


def _record(record: Any, data: Any, at: str, strict: bool) -> Any:
    """*data* as a *record*; strict: unknown keys are errors."""
    if not isinstance(data, dict):
        raise _Wrong(at, "expected an object", data)
    dot = f"{at}." if at else ""
    known = {f.key for f in _fields_of(record) if f.instead is None}
    for key in data:
        if strict and key not in known:
            raise _Wrong(f"{dot}{_name(key)}", f"unknown key{did_you_mean(key, known)}")
    values: dict[str, Any] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for f in _fields_of(record):
        if f.instead is not None:
            values[f.name] = f.instead()
        elif f.key in data:
            values[f.name] = _value(f.kind, data[f.key], f"{dot}{f.key}", strict, sizes)
        elif f.required:
            raise _Wrong(f"{dot}{f.key}", f"expected {_expected(f.kind)}, but the key is missing")
    try:
        return record(**values)
    except InputError as err:  # of its own checks
        raise _Wrong(at, str(err)) from None


def _value(kind: Any, value: Any, at: str, strict: bool, sizes: dict[str, tuple[int, str]]) -> Any:
    """*value* as *kind* says; sizes: of the axes of arrays that this record has so far."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        found = _value(args[0], value, at, strict, sizes)
        for condition in args[1:]:
            if isinstance(condition, Must) and not condition.holds(found):
                raise _Wrong(at, f"expected {condition.what}", value)
            if isinstance(condition, OneOf):
                _check_word(condition.words, value, at)
            if isinstance(condition, Shape):
                _check_shape(condition, found, at, sizes)
        return found
    if origin in (Union, UnionType):
        return _one_of(args, value, at, strict, sizes)
    if origin is Literal:
        _check_word(args, value, at)
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _Wrong(at, "expected a list", value)
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) != len(value):
            raise _Wrong(at, f"expected a list of {len(kinds)}", value)
        return tuple(
            _value(k, v, f"{at}[{n}]", strict, {})
            for n, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise _Wrong(at, "expected an object", value)
        return {
            _value(args[0], k, f"a key of {at}", strict, {}): _value(
                args[1], v, f"{at}.{_name(k)}", strict, {}
            )
            for k, v in value.items()
        }
    if is_dataclass(kind):
        return _record(kind, value, at, strict)
    return _plain(kind, value, at)


def _check_word(words: tuple[str, ...], value: Any, at: str) -> None:
    if not isinstance(value, str) or value not in words:
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        raise _Wrong(at, f"expected {_words(words)}", value, hint)


def _one_of(args: tuple[Any, ...], value: Any, at: str, strict: bool, sizes: Any) -> Any:
    kinds = [k for k in args if k is not NoneType]
    if value is None and len(kinds) < len(args):
        return None
    if len(kinds) == 1:
        return _value(kinds[0], value, at, strict, sizes)
    for kind in kinds:
        try:
            return _value(kind, value, at, strict, sizes)
        except _Wrong:
            continue
    raise _Wrong(at, f"expected {_expected(Union[args])}", value)  # noqa: UP007


def _plain(kind: Any, value: Any, at: str) -> Any:
    if kind is Any:
        return value
    if kind is np.ndarray:
        return _array(value, at)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and type(value) is int and abs(value) < 2**63:
        return value
    if kind is float and _number(value):
        return float(value)
    if kind in (str, Path) and isinstance(value, str) and _printable(value):
        return kind(value)
    raise _Wrong(at, f"expected {_expected(kind)}", value)


def _number(value: Any) -> bool:
    """Whether *value* is a number that arithmetic can take."""
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _printable(text: str) -> bool:
    """Whether *text* can be written again (JSON can hold halves of characters) and be a path."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def _array(value: Any, at: str) -> np.ndarray:
    """Lists of numbers, nested as deep as they are, all rows alike."""

    def check(part: Any, place: str) -> tuple[int, ...]:
        if not isinstance(part, list):
            if not _number(part):
                raise _Wrong(place, "expected a finite number", part)
            return ()
        if place.count("[") - at.count("[") > _DEEPEST:
            raise _Wrong(place, "expected a finite number", part)
        shapes = [check(p, f"{place}[{n}]") for n, p in enumerate(part)]
        for n, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise _Wrong(f"{place}[{n}]", "expected as many numbers as in the rows before")
        return (len(shapes), *(shapes[0] if shapes else ()))

    if not isinstance(value, list):
        raise _Wrong(at, "expected a list of numbers", value)
    check(value, at)
    return np.array(value) if value else np.zeros(0)


def _check_shape(shape: Shape, found: Any, at: str, sizes: dict[str, tuple[int, str]]) -> None:
    if found is None:
        return
    axes = shape.axes.split()
    if len(axes) > 1 and found.size == 0:
        found = found.reshape((0,) * len(axes))
    if found.ndim != len(axes):
        raise _Wrong(at, f"expected {len(axes)}-dimensional lists of numbers, got {found.ndim}")
    for axis, size in zip(axes, found.shape, strict=True):
        expected, where = sizes.setdefault(axis, (int(axis) if axis.isdigit() else size, at))
        if size != expected:
            raise _Wrong(at, f"expected {expected} numbers as in {where}, got {size}")


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "text",
    np.ndarray: "a list of numbers",
    NoneType: "null",
}


def _expected(kind: Any) -> str:
    """In words."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        said = [c.what for c in args[1:] if isinstance(c, Must)]
        said += [_words(c.words) for c in args[1:] if isinstance(c, OneOf)]
        return said[0] if said else _expected(args[0])
    if origin is Literal:
        return _words(args)
    if origin in (Union, UnionType):
        return _or(_expected(a) for a in args)
    if origin is tuple:
        return "a list"
    return _WORDS.get(kind, "an object")


def _words(words: tuple[str, ...]) -> str:
    return _or(json.dumps(word, ensure_ascii=False) for word in words)


def _or(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _name(key: str) -> str:
    """A key of a file as it is printed; it may be anything."""
    text = key if _printable(key) and key.isprintable() else json.dumps(key)
    return text if len(text) <= 40 else f"{text[:37]}..."
