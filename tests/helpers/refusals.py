"""A refusal: one line, exit status 2, and every file as it was."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

LOCK = ".alchemdriver.lock"
POSCAR = "start.vasp"
LENGTHS = ("--equilibrate", 5, "--switch", 10, "--cycles", 1)


def tree(folder: Path) -> dict[str, str]:
    """Every file with the hash of its content, but what a server leaves beside its input."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else "folder"
        for p in sorted(folder.rglob("*"))
        if p.name != LOCK and not p.name.endswith(".origin.json")
    }


def is_one_line(status: int, stderr: str, *expected: str) -> None:
    stderr = re.sub(r"\Aloading the model .*\n", "", stderr)  # a client says that first
    assert stderr.startswith("error: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert status == 2
    for words in expected:
        assert words in stderr, stderr


def prepare(
    *more, protocol="switch-nvt", structure=POSCAR, alchemy="Cu->Au", model="osc.json", t=300
):
    given = ["prepare", protocol, structure, "new", "--alchemy", alchemy, "--model", model]
    lengths = LENGTHS if protocol.startswith("switch") else ()
    return [*given, "--temperature", t, *lengths, *more]
