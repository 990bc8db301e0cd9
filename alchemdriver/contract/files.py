"""Files, whole or not at all; one way to write them and one to read them.

What is written goes aside into the same folder, is synced to the disk and renamed, so that at any
moment, a power cut included, the old file or the new one is there.  Text is UTF-8 whatever the
locale.  Nothing here knows what is in a file; see :mod:`.stored` for records.
"""

from __future__ import annotations

import ctypes
import filecmp
import hashlib
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

from ..errors import InputError

_NUMBER = itertools.count()  # of asides, so that no two of a process are called alike


def sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return sha256_of(f)


def sha256_of(stream: IO[bytes] | BufferedIOBase) -> str:
    """Of what is left in *stream*, which may be larger than the memory."""
    found = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()


# --- writing ------------------------------------------------------------------------------------


def write_text(path: Path, text: str, *, keep_previous: bool = False) -> None:
    """One file of UTF-8 text; see :func:`write_files`."""
    write_files({path: text}, keep_previous=keep_previous)


def write_json(path: Path, document: Any) -> None:
    """One file of JSON; a NaN is an error."""
    write_files({path: json_text(document)})


def write_files(contents: Mapping[Path, str | bytes], *, keep_previous: bool = False) -> None:
    """Write all of *contents*, path → text or bytes, with one sync for the set.

    Each file is whole or as it was; nothing is renamed before everything is on the disk.
    keep_previous: what was there stays as ``NAME.previous``.  The folders must exist.
    """
    with _asides() as place:
        for path, content in contents.items():
            data = content.encode("utf-8") if isinstance(content, str) else content
            place(path, keep_previous).write_bytes(data)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """For libraries that write by themselves: the path to give them, renamed to *path* at the end.

    It ends like *path*, for those that choose a format by the ending.  After an exception *path* is
    as it was.
    """
    with _asides() as place:
        yield place(path, False)


UNFINISHED = ".prepare-"  # in a folder that is being filled: what is not in its place yet
_LAST = {"input.xml": 1, "workflow.json": 2}  # by these a folder is recognised


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, whose content is in *folder* at the end: all of it, or none.

    A folder that does not exist is there from one moment to the next.  Into one that exists
    (which may be somebody's working directory) the content is moved, inputs last; until
    that is over a folder beginning with ``UNFINISHED`` stands in it.  After an exception everything
    is as it was, or that folder still stands.  Raises InputError where other files are in the way.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another folder")
    new = not folder.exists()
    if new:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    else:
        aside = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    moving = False
    try:
        yield aside
        _sync([f for f in aside.rglob("*") if f.is_file()])
        if not new:
            _check_room(aside, folder)
        moving = True
        if new:
            umask = os.umask(0)
            os.umask(umask)
            aside.chmod(0o777 & ~umask)  # mkdtemp's are private
            aside.rename(folder)
        else:
            _move_into(aside, folder)
    except BaseException:
        if new or not moving:
            shutil.rmtree(aside, ignore_errors=True)
        raise


def _in_order(aside: Path) -> list[Path]:
    return sorted(
        (f.relative_to(aside) for f in aside.rglob("*") if f.is_file()),
        key=lambda f: (_LAST.get(f.name, 0), f),
    )


def _check_room(aside: Path, folder: Path) -> None:
    for file in _in_order(aside):
        there = folder / file
        if there.exists() and not (
            there.is_file() and filecmp.cmp(aside / file, there, shallow=False)
        ):
            raise InputError(
                f"{there.parent} already holds another {file.name}: choose another folder"
            )


def _move_into(aside: Path, folder: Path) -> None:
    for inner in (f for f in aside.rglob("*") if f.is_dir()):
        (folder / inner.relative_to(aside)).mkdir(parents=True, exist_ok=True)
    for file in _in_order(aside):
        os.replace(aside / file, folder / file)
    shutil.rmtree(aside)


def append_line(path: Path, text: str) -> None:
    """Add one line to a file that grows, and sync it.  A kill may leave a part of the line."""
    with open(path, "a", encoding="utf-8", newline="\n") as f:
        f.write(text + "\n")
        f.flush()
        os.fsync(f.fileno())


def json_text(document: Any) -> str:
    """Indented JSON with a line end; a NaN is an error."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def _asides() -> Iterator[Callable[[Path, bool], Path]]:
    """Hands out paths to write to, and puts them in place at the end if nothing was raised."""
    asides: dict[Path, tuple[Path, bool]] = {}

    def place(path: Path, keep_previous: bool) -> Path:
        path = Path(path)
        # What is written again and again, by the one process that holds its folder's lock, has one
        # name: a kill in the middle leaves one file behind, not one a kill.
        own = "" if keep_previous else f"{os.getpid()}-{next(_NUMBER)}."
        aside = path.with_name(f".{own}{path.name}")
        asides[path] = aside, keep_previous
        return aside

    try:
        yield place
        for path, (aside, _) in asides.items():
            _keep_mode(path, aside)
        _sync([aside for aside, _ in asides.values()])
        for path, (aside, keep_previous) in asides.items():
            if keep_previous and path.exists():
                os.replace(path, path.with_name(f"{path.name}.previous"))
            os.replace(aside, path)
    finally:
        for aside, _ in asides.values():
            aside.unlink(missing_ok=True)


def _keep_mode(path: Path, aside: Path) -> None:
    """A new file has the permissions of the umask; one that replaces another has the other's."""
    try:
        old = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISREG(old):
        aside.chmod(stat.S_IMODE(old))


def _sync(files: list[Path]) -> None:
    """To the disk: one file by itself, several by one call for their file system where the system
    has one (``syncfs`` of Linux), which costs as much as a single file."""
    if len(files) > 1:
        syncfs = getattr(ctypes.CDLL(None), "syncfs", None)
        if syncfs is not None:
            for folder in {f.parent.stat().st_dev: f.parent for f in files}.values():
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    if syncfs(descriptor) != 0:
                        break
                finally:
                    os.close(descriptor)
            else:
                return
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- reading ------------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """A file of UTF-8 text.  Raises InputError, one line, if it is not there or is not text."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror}") from None
    except ValueError:  # no UTF-8
        raise InputError(f"{path} is not a text file (UTF-8)") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file, finite numbers only.

    Raises InputError, one line, for what is not JSON, a key that stands twice, and a NaN.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """JSON *text*; InputError, one line, that begins with *where*."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError) as err:
        reason = "too deeply nested" if isinstance(err, RecursionError) else str(err)
        raise InputError(f"{where} is not JSON: {reason}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!a} stands twice in one object")
    return found


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not a number")
