"""What a run began with: ``input.origin.json``, beside ``input.xml``.

From its first step on i-PI goes by its checkpoints: an input that is edited afterwards is not what
ran, though it would be taken for it.  So the server writes down what decides the numbers when a run
begins, and whoever resumes or analyses it compares.  A run may be lengthened, which is written
down, too; it may move to another machine, socket or precision, and wait longer for clients.
"""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from .. import __version__
from ..errors import AnalysisError, InputError
from .digest import model_here
from .files import sha256, sha256_of
from .layout import KINETIC
from .parameters import KEYS, split_parameters
from .run_input import RunInput
from .schedule import SHAPES
from .stored import Count, Format, Index
from .xmltree import child, many, parse_xml, text_of

__all__ = [
    "Origin", "begin", "check", "check_length", "check_outputs", "files_of", "go_on", "path_of",
    "read", "seal",
]  # fmt: skip

# Where a run goes on, and how much it says: in no number, and followed on resume (server.serve),
# but for the verbosity, which i-PI keeps.
_FREE = {
    "simulation": {"@verbosity", "@sockets_prefix", "@threading", "total_steps"},
    "ffsocket": {"@mode", "address", "port", "timeout"},
    # the digest is compared with the models themselves
    "parameters": {k.name for k in KEYS.values() if not (k.resume or k.digest)} | {"digest"},
}


@dataclass(frozen=True)
class Length:
    """Another length, from some step on."""

    at_step: Index
    total_steps: Count


@dataclass(frozen=True)
class Origin:
    """The content of the file."""

    version: str  # of alchemdriver
    total_steps: Count
    model_sha256: str | None  # None: the model was elsewhere
    files: dict[str, str]  # name of a file that the input reads → sha256
    input: dict[str, str]  # element → text, of all that decides numbers
    lengthened: tuple[Length, ...] = ()
    other_sha256: str | None = None  # of the model at λ = 1 of model->other
    outputs: dict[str, str] | None = None  # what was printed, sha256 once all steps are done

    @property
    def last_length(self) -> int:
        """Steps that the run was to have when it was last started."""
        return self.lengthened[-1].total_steps if self.lengthened else self.total_steps


_FORMAT = Format(
    "alchemdriver-origin/1",
    Origin,
    remedy="restore it, or delete it if you know that the input was not changed",
)


def path_of(run: RunInput) -> Path:
    return run.path.with_suffix(".origin.json")


def read(run: RunInput) -> Origin | None:
    """None for a run that has not begun, or of a version that wrote nothing down.  InputError."""
    path = path_of(run)
    return _FORMAT.read(path) if path.exists() else None


def begin(run: RunInput) -> None:
    """Write down what *run* begins with: it is at step 0."""
    model, other = _models(run)
    files, deciding = dict(files_of(run)), _deciding(run)
    found = Origin(__version__, run.total_steps, model, files, deciding, other_sha256=other)
    _FORMAT.write(path_of(run), found)


def _models(run: RunInput) -> tuple[str | None, str | None]:
    """sha256 of the model and of the other one; None: not here, or there is none."""
    p = run.parameters
    return model_here(run, p.model), None if p.other is None else model_here(run, p.other)


def go_on(run: RunInput, step: int) -> None:
    """Write down that *run* goes on from *step*, and its length if it is another than before."""
    before = read(run)
    if before is None:
        return
    lengths = before.lengthened
    if before.last_length != run.total_steps:
        lengths = (*lengths, Length(step, run.total_steps))
    # what it prints from here on takes the place of what was printed
    _FORMAT.write(path_of(run), replace(before, lengthened=lengths, outputs=None))


def check(run: RunInput, *, with_model: bool = False) -> Origin | None:
    """What *run* began with.  Raises InputError, one line, if it says something else now.

    with_model: the model is compared, too, if it is on this disk.
    """
    began = read(run)
    if began is None:
        return None
    pairs = [(f"<{name}> is", *both) for name, *both in _differing(began.input, _deciding(run))]
    pairs += [
        (f"the sha256 of {name} is", was[:12], is_[:12])
        for name, was, is_ in _differing(began.files, dict(files_of(run)))
    ]
    if with_model:
        then = (began.model_sha256, began.other_sha256)
        for name, was, is_ in zip(("model", "other"), then, _models(run), strict=True):
            if was is not None and is_ is not None and was != is_:
                pairs.append((f"the sha256 of the {name} is", was[:12], is_[:12]))
    if pairs:
        what, was, now = pairs[0]
        others = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
        raise InputError(
            f"{run.path} was changed after the run began: {what} {now or 'absent'} now and was "
            f"{was or 'absent'}{others}; restore it, or start in a new folder"
        )
    return began


def seal(run: RunInput) -> None:
    """Write down what a finished *run* printed, once."""
    before = read(run)
    if before is not None and before.outputs is None:
        outputs = {path.name: sha256(path) for path in _printed(run)}
        _FORMAT.write(path_of(run), replace(before, outputs=outputs))


def check_outputs(run: RunInput) -> None:
    """Raises AnalysisError where rows of a finished *run* are no longer those that it printed.

    A digit that changed on a disk, or under an editor, is in the free energy and in no other check.
    """
    began = read(run)
    for name, expected in ((began.outputs if began else None) or {}).items():
        path = run.output(name).with_name(name)
        packed = path.with_name(f"{name}.gz")
        try:
            if path.exists():
                found = sha256(path)
            elif packed.exists():
                with gzip.open(packed) as f:
                    found = sha256_of(cast(IO[bytes], f))
            else:
                continue  # whoever needs it says so
        except (OSError, EOFError, zlib.error) as err:
            raise AnalysisError(f"{path} cannot be read: {err}") from None
        if found != expected:
            raise AnalysisError(
                f"{path} was changed after the run ended (its sha256 is {found[:12]}, it was "
                f"{expected[:12]}): restore it, or begin anew without its checkpoints"
            )


def _printed(run: RunInput) -> Iterator[Path]:
    """The files that free energies are summed from."""
    for output in run.properties:
        yield from filter(Path.is_file, [run.output(output.filename)])
    names = [e.filename for e in run.extras]
    names += [t.filename for t in run.trajectories if t.quantity == KINETIC]
    for name in names:
        path = run.output(name)
        yield from sorted(
            p for p in path.parent.glob(f"{glob.escape(path.name)}*") if p.suffix != ".gz"
        )


def check_length(run: RunInput, done: int) -> None:
    """Raises InputError if *run* is to have fewer steps than are *done*."""
    if done > run.total_steps:
        raise InputError(
            f"{run.path}: <total_steps> is {run.total_steps}, but {done} steps are done: a run may "
            f"be lengthened, not cut; give at least {done}"
        )


# --- what decides numbers -----------------------------------------------------------------------


_HELD = ("fixatoms", "fixatoms_dof")


def files_of(run: RunInput) -> Iterator[tuple[str, str]]:
    """(name, sha256) of the files that the input names, but the model."""
    root = parse_xml(run.path.read_text(encoding="utf-8"), str(run.path))
    p = run.parameters
    names = [text_of(f) for f in many(child(root, "system", "initialize", "file"))]
    names += [name for name in (p.springs, p.masses_file) if name]
    names += [p.schedule] if p.schedule and p.schedule not in SHAPES else []
    for name in dict.fromkeys(names):
        path = run.folder / name
        try:
            yield name, sha256(path)
        except OSError as err:
            raise InputError(f"{path} cannot be read: {err.strerror}") from None


def _deciding(run: RunInput) -> dict[str, str]:
    """Element → text, of everything in the input that decides numbers.

    Held coordinates as they are understood: <fixatoms> and <fixatoms_dof> can say the same.
    """
    root = parse_xml(run.path.read_text(encoding="utf-8"), str(run.path))
    texts = {k: v for k, v in _texts("simulation", root, "") if not k.endswith(_HELD)}
    return texts | {"coordinates that are held": " ".join(map(str, run.held))}


def _texts(tag: str, node: Any, at: str) -> Iterator[tuple[str, str]]:
    free = _FREE.get(tag, set())
    if tag == "parameters":
        values = split_parameters(text_of(node))
        yield from ((f"{at} {k}", v) for k, v in values.items() if k not in free)
        return
    if not isinstance(node, dict):
        yield at or tag, " ".join(str(node or "").split())
        return
    for key, value in node.items():
        if key in free or key == "#comment":
            continue
        if key == "#text":
            yield at or tag, " ".join(str(value).split())
            continue
        several = isinstance(value, list)
        for k, inner in enumerate(many(value)):
            place = " ".join(filter(None, (at, key.replace("@", ""))))
            yield from _texts(key, inner, f"{place} {k + 1}" if several else place)


def _differing(was: dict[str, str], now: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in (*was, *(n for n in now if n not in was)):
        a, b = was.get(name, ""), now.get(name, "")
        if not _same(a, b):
            yield name, _short(a), _short(b)


def _same(a: str, b: str) -> bool:
    if "".join(a.split()) == "".join(b.split()):
        return True
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
