"""Checks that need the package in one piece: who may import whom (import-linter), types (mypy), and
whether a built package would hold every folder.

``analysis/`` and ``ipi_inputs/`` stand beside ``alchemdriver/`` and are installed into it, by
``package-dir`` in pyproject.toml.  The tools look at files, so they are shown a throw-away tree of
links in which every package stands where an installation puts it.  What they check stands in
pyproject.toml, too.

    python tools/house.py                     all
    python tools/house.py packages imports    some
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # mypy and import-linter bring it there

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PACKAGE = "alchemdriver"

with open(ROOT / "pyproject.toml", "rb") as _f:
    SETUPTOOLS = tomllib.load(_f)["tool"]["setuptools"]
# Package → its folder in the sources, of those that do not stand in their parent's.
FOLDERS = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}


def link_tree(place: Path) -> None:
    """Links under *place* that look like the installed package, and the tools' settings."""
    (place / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    (place / PACKAGE).mkdir()
    for entry in FOLDERS[PACKAGE].iterdir():
        (place / PACKAGE / entry.name).symlink_to(entry)
    for name, folder in FOLDERS.items():
        if name != PACKAGE:
            place.joinpath(*name.split(".")).symlink_to(folder)


def check_packages(tree: Path) -> bool:
    """Whether pyproject.toml names the packages that there are: a wheel holds no others."""
    found = {
        ".".join(Path(folder).relative_to(tree).parts)
        for folder, _, files in os.walk(tree / PACKAGE, followlinks=True)
        if any(file.endswith(".py") for file in files)
    }
    declared = set(SETUPTOOLS["packages"])
    for name in sorted(found ^ declared):
        lack = "is not among the packages of" if name in found else "is not there, says"
        print(f"{name} {lack} pyproject.toml")
    return found == declared


def check_imports(tree: Path) -> bool:
    """Whether all imports, those inside functions too, run the way that pyproject.toml allows."""
    return run(tree, BIN / "lint-imports", "--no-logo", "--no-cache")


def check_types(tree: Path) -> bool:
    """Whether mypy has nothing to say; its cache is kept, so that a second run takes seconds."""
    cache = ROOT / ".mypy_cache"
    return run(tree, sys.executable, "-m", "mypy", "--package", PACKAGE, "--cache-dir", cache)


def run(tree: Path, *command: str | Path) -> bool:
    """Whether *command* succeeds, run where Python would import the tree's packages."""
    env = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=env, check=False, capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        print(_in_sources(line))
    return done.returncode == 0


def _in_sources(line: str) -> str:
    """A message about a file of the tree, about the source file instead."""
    for name, folder in FOLDERS.items():
        there = name.replace(".", "/") + "/"
        if name != PACKAGE and line.startswith(there):
            return f"{folder.relative_to(ROOT)}/{line.removeprefix(there)}"
    return line


CHECKS = {"packages": check_packages, "imports": check_imports, "types": check_types}


def main(names: list[str]) -> int:
    for name in names:
        if name not in CHECKS:
            print(f"error: '{name}': expected one of {', '.join(CHECKS)}")
            return 2
    with tempfile.TemporaryDirectory() as place:
        link_tree(Path(place))
        passed = [CHECKS[name](Path(place)) for name in names or CHECKS]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
