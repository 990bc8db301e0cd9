"""The wheel holds what the program needs, starts from it, and says what it depends on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import alchemdriver

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
with open(ROOT / "pyproject.toml", "rb") as _f:
    PROJECT = tomllib.load(_f)["project"]
SOURCES = {"alchemdriver": "alchemdriver", "analysis": "alchemdriver/analysis"}
SOURCES["ipi_inputs"] = "alchemdriver/ipi_inputs"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as `pip wheel .` does, by the installed setuptools."""
    place = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for name in SOURCES:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    (place / "dist").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True, capture_output=True)
    (found,) = (place / "dist").glob("*.whl")
    return found


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    expected = {
        (Path(inside) / f.relative_to(ROOT / folder)).as_posix()
        for folder, inside in SOURCES.items()
        for f in (ROOT / folder).rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"alchemdriver-{alchemdriver.__version__}.dist-info/"
    assert {n for n in names if not n.startswith(info)} == expected
    assert {info + "licenses/LICENSE", info + "entry_points.txt"} <= names


def test_it_works_where_the_sources_are_not(wheel, tmp_path):
    """Unpacked into an empty folder, dependencies beside it, `.pth` files of editable installs
    off."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    paths = [str(tmp_path / "site"), *(p for p in sys.path if p.endswith("site-packages"))]
    start = (
        f"import sys; sys.path[:0] = {paths!r}; sys.argv[0] = 'alchemdriver'; "
        "from alchemdriver.__main__ import start; start()"
    )

    def alchemdriver_(*words):
        return subprocess.run(
            [sys.executable, "-S", "-c", start, *words], cwd=tmp_path, text=True, check=False,
            capture_output=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )  # fmt: skip

    assert alchemdriver_("--version").stdout.split() == ["alchemdriver", alchemdriver.__version__]
    (tmp_path / "fe.xyz").write_text(
        '2\nLattice="2.83 0 0 0 2.83 0 0 0 2.83"\nFe 0 0 0\nFe 1.415 1.415 1.415\n'
    )
    options = ["--model", "demo-fe", "--temperature", "300", "--supercell", "2x2x2"]
    done = alchemdriver_("prepare", "nvt", "fe.xyz", "md", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "md" / "input.xml").is_file()


def test_starting_imports_nothing_heavy():
    """`import alchemdriver` the standard library alone, the command line no scientific package but
    numpy: what makes either start in a fraction of a second."""
    code = (
        "import sys; before = set(sys.modules); {}; "
        "print(*{{m.split('.')[0] for m in set(sys.modules) - before}})"
    )

    def imported(what: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", code.format(what)], capture_output=True, text=True
        )
        return set(done.stdout.split())

    heavy = {"torch", "mace", "ipi", "scipy", "pandas", "matplotlib", "numba", "pymbar", "spglib"}
    assert imported("import alchemdriver") - set(sys.stdlib_module_names) == {"alchemdriver"}
    assert not imported("import alchemdriver.cli.main") & heavy


def test_every_dependency_has_a_reason():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    extras = [
        r for n, group in PROJECT["optional-dependencies"].items() if n != "dev" for r in group
    ]
    for requirement in [*PROJECT["dependencies"], *extras]:
        name = re.match(r"[\w-]+", requirement)[0]
        row = next((line for line in page.splitlines() if f"`{name}`" in line), None)
        assert row is not None, name
        assert len(row.split("|")[2].strip()) > 3, name


def test_the_citation_is_of_this_version():
    assert f"\nversion: {alchemdriver.__version__}\n" in (ROOT / "CITATION.cff").read_text()
