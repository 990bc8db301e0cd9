"""The model shelf: from a model's name to its family, its files, its sha256 and its card.

A name is that of a model of some family, or a path to a file, relative to the folder of the input.
A file is of the family that claims its suffix; a JSON file says its family under the key
"backend", and is of the embedded format if it has none.

Families are those of :mod:`.families` and of installed packages that register a ``ModelFamily``
under the entry point group ``alchemdriver.backends``.  Entry points belong to the environment, so
server, client and analysis find the same without being told.  A package that cannot be loaded, or
whose names are taken, is left out with one line in the log; what is built in always keeps its name.

A ``.model`` file is a pickle, and **loading a pickle runs code that its author chose**.  Only the
file that the user named is ever loaded, and its sha256 is logged.

Nothing here imports torch or opens a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ..errors import AlchemdriverError, ModelError, did_you_mean
from .families import BUILT_IN, FOUNDATION_ELEMENTS, ModelCard, ModelFamily, read_json

__all__ = [
    "FOUNDATION_ELEMENTS",
    "GROUP",
    "Model",
    "ModelCard",
    "ModelFamily",
    "catalogue",
    "check_options",
    "family",
    "files_of",
    "find",
    "foreign",
    "is_file",
    "model_digest",
    "require_neutral",
    "unknown",
    "without",
]

log = logging.getLogger(__name__)

GROUP = "alchemdriver.backends"  # of entry points


@dataclass(frozen=True)
class Model:
    """A model that was found, not opened."""

    name: str  # as the user gave it
    family: ModelFamily
    path: Path
    package: str | None  # that brought the family; None: built in

    @property
    def sha256(self) -> str:
        """Of its files one after the other, 64 hex digits.  Raises ModelError."""
        digest = hashlib.sha256()
        with foreign(self.package):
            files = self.family.files(self.path)
        for file in files:
            try:
                with open(file, "rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
            except OSError as err:
                raise ModelError(f"model file {file} cannot be read: {err.strerror}") from None
        return digest.hexdigest()


def find(name: str, folder: Path = Path(".")) -> Model:
    """The model called *name*, downloaded if it must be; paths are relative to *folder*.

    Raises ModelError if no model has this name, or its file is not there.
    """
    shelf, of = _shelf(), family(name, folder)
    package = shelf.packages.get(of.name)
    card = next((card for card in shelf.cards(of) if card.name == name), None)
    if card is None:
        return Model(name, of, _resolve(name, folder), package)
    with foreign(package):
        return Model(name, of, card.file or of.fetch(card), package)


def family(name: str, folder: Path = Path(".")) -> ModelFamily:
    """The family of the model called *name*; opens and fetches nothing.

    Raises ModelError as :func:`find` does.
    """
    shelf = _shelf()
    for one in shelf.families:
        if any(card.name == name for card in shelf.cards(one)):
            return one
    if not is_file(name):
        raise ModelError(unknown(name))
    path = _resolve(name, folder)
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist")
    return shelf.family_of(path)


def unknown(name: str) -> str:
    """The message about *name*, which is neither a file nor a model's."""
    shelf = _shelf()
    known = [card.name for card in catalogue()]
    kinds = [n for n in known if n.startswith(f"{name}-")]
    if kinds:
        return f"model '{name}' is of several kinds, name one: {', '.join(kinds)}"
    left_out = "".join(f"; {fault}" for fault in shelf.faults)
    return (
        f"unknown model '{name}'{did_you_mean(name, known)}; expected a path to a "
        f"{' or '.join(shelf.suffixes)} file, or one of {', '.join(known)}{left_out}"
    )


def model_digest(name: str, folder: Path = Path(".")) -> str:
    """sha256 of the model's file, or of its JSON and tensors together; 64 hex digits.

    Needs no torch, except that a foundation model not yet on this disk is downloaded first.
    Raises ModelError as :func:`find` does.
    """
    return find(name, Path(folder)).sha256


def catalogue() -> list[ModelCard]:
    """Cards of every model that has a name; downloads nothing."""
    shelf = _shelf()
    return [card for family in shelf.families for card in shelf.cards(family)]


def is_file(name: str) -> bool:
    """Whether *name* means a file: by its suffix, which no model's name has."""
    return Path(name).suffix in _shelf().suffixes


def check_options(name: str, head: str | None, charge: float | None, spin: float | None) -> None:
    """Raises ModelError if the model *name* cannot have that head, charge (e) or spin (2S + 1).

    Opens and fetches nothing: what only the opened model can tell passes.
    """
    of = family(name)
    if head is not None and not of.heads:
        raise ModelError(without(name, "heads", f"head '{head}'"))
    if not (is_file(name) and of.charged):
        require_neutral(name, charge, spin)


def require_neutral(name: str, charge: float | None, spin: float | None) -> None:
    """Raises ModelError unless *charge* (e) and *spin* (2S + 1) are those of a neutral singlet."""
    if charge:
        raise ModelError(without(name, "total charge", f"charge {charge:g}"))
    if spin not in (None, 0.0, 1.0):  # 0: the S of a singlet, in other conventions
        raise ModelError(without(name, "spin", f"spin {spin:g}"))


def without(name: str, what: str, given: str) -> str:
    """The message about *given*, of which the model *name* knows nothing."""
    return (
        f"model '{name}' takes no {what}, and {given} would change nothing: choose a model that "
        "does, or remove it from the structure file or the options"
    )


def files_of(path: Path) -> list[Path]:
    """All files that decide the numbers of the model in the file *path*, that one first."""
    shelf = _shelf()
    family = shelf.family_of(path)
    with foreign(shelf.packages.get(family.name)):
        return list(family.files(path))


def _resolve(name: str, folder: Path) -> Path:
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise ModelError(f"model file {name}: this user has no home directory") from None
    return path if path.is_absolute() else folder / path


# --- families -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shelf:
    families: tuple[ModelFamily, ...]  # no two share a name, a model's name or a suffix
    packages: dict[str, str]  # name of a family -> the package that brought it
    faults: tuple[str, ...]  # of packages that were left out, a line each

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of files that are models."""
        return tuple(dict.fromkeys(s for family in self.families for s in family.suffixes))

    def cards(self, family: ModelFamily) -> Sequence[ModelCard]:
        with foreign(self.packages.get(family.name)):
            return family.cards()

    def family_of(self, path: Path) -> ModelFamily:
        """The family of a file.  Raises ModelError."""
        if path.suffix == ".json":
            of_json = {f.name: f for f in self.families if ".json" in f.suffixes}
            name = read_json(path).get("backend", BUILT_IN[0].name)
            if not isinstance(name, str) or name not in of_json:
                raise ModelError(
                    f"model file {path}: no backend '{name}'{did_you_mean(name, of_json)}; "
                    f"expected one of {', '.join(of_json)}"
                )
            return of_json[name]
        for family in self.families:
            if path.suffix in family.suffixes:
                return family
        raise ModelError(f"model file {path}: expected one of {', '.join(self.suffixes)}")


@cache
def _shelf() -> _Shelf:
    """Built-in families and those of packages, in order of their names; once per process."""
    families, packages, faults = list(BUILT_IN), {}, []
    found = [(_package(entry), entry) for entry in entry_points(group=GROUP)]
    for package, entry in sorted(found, key=lambda each: (each[0], each[1].name)):
        try:
            with foreign(package):
                family = entry.load()
                _require_new(family, families)
        except AlchemdriverError as err:
            faults.append(f"models left out: {err}")
            log.warning("%s", faults[-1])
            continue
        families.append(family)
        packages[family.name] = package
    return _Shelf(tuple(families), packages, tuple(faults))


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _require_new(family: ModelFamily, families: Sequence[ModelFamily]) -> None:
    """Raise ValueError unless *family* is one and all of its names and suffixes are new."""
    if not isinstance(family, ModelFamily):
        raise TypeError(f"expected a ModelFamily, got a {type(family).__name__}")
    names = [card.name for card in family.cards()]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"a model '{min(twice)}' is there twice")
    for other in families:
        if family.name == other.name:
            raise ValueError(f"a family '{family.name}' is there already")
        taken = {card.name for card in other.cards()}.intersection(names)
        if taken:
            raise ValueError(f"a model '{min(taken)}' is there already")
        claimed = set(family.suffixes) & set(other.suffixes) - {".json"}
        if claimed:
            raise ValueError(f"files *{min(claimed)} are those of the family '{other.name}'")


@contextlib.contextmanager
def foreign(package: str | None) -> Iterator[None]:
    """Whatever the code of *package* raises becomes a ModelError that names it; None: our own."""
    try:
        yield
    except AlchemdriverError:
        raise
    except Exception as err:
        if package is None:
            raise
        reason = " ".join(str(err).split())
        raise ModelError(f"package {package}: {type(err).__name__}: {reason}") from err
