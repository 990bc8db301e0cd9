"""Models of other packages, through the entry point group ``alchemdriver.backends``.

Packages are installed as pip would: the module and its ``.dist-info`` in a folder on the path, of
this process or of the ones that a test starts.
"""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from helpers.real_runs import ENV, LIMIT

from alchemdriver.contract import shelf
from alchemdriver.errors import ModelError
from alchemdriver.potential.open import open_model
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.records import Structure
from alchemdriver.testing import assert_conforms

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLUGIN = Path(__file__).parent / "plugin"
FAMILY = """
from pathlib import Path
from alchemdriver.contract.shelf import ModelCard, ModelFamily
"""


def entry(folder: Path, package: str, **points: str) -> None:
    """Metadata of *package* with entry points, as an installer leaves them."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[alchemdriver.backends]", *lines]) + "\n")


@pytest.fixture
def site(tmp_path):
    """A folder with the package of ``plugin/`` in it."""
    folder = tmp_path / "site"
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    entry(folder, project["name"], **project["entry-points"]["alchemdriver.backends"])
    shutil.copytree(PLUGIN / "soft_spheres", folder / "soft_spheres")
    return folder


@pytest.fixture
def here(site, monkeypatch):
    """*site* on the path of this process."""
    monkeypatch.syspath_prepend(str(site))
    shelf._shelf.cache_clear()
    yield site
    shelf._shelf.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("soft_spheres", "other")]:
        del sys.modules[name]


def other(folder: Path, code: str) -> None:
    """A second package, whose module is *code*."""
    (folder / "other.py").write_text(FAMILY + code)
    entry(folder, "other-models", other="other:FAMILY")


def command(site: Path, *words, where: Path):
    return subprocess.run(
        [sys.executable, "-m", "alchemdriver", *map(str, words)],
        cwd=where,
        env=ENV | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


# --- a package that works ---------------------------------------------------------------------


def test_a_model_of_a_package_conforms(here):
    rng = np.random.default_rng(4)
    cell = np.array([[6.0, 0.3, 0.0], [0.2, 5.5, 0.4], [0.5, 0.1, 6.2]])
    structure = Structure(("Ar", "Kr", "Ar", "Ar", "Kr"), rng.random((5, 3)) @ cell, cell)
    backend = open_model("soft-spheres-noble")
    assert_conforms(backend, structure, states=[{0: "Ar", 3: "Kr"}, {0: "Kr"}])


def test_its_digest_and_card_do_not_import_the_model(here, tmp_path):
    card = next(card for card in shelf.catalogue() if card.name == "soft-spheres-noble")
    assert (card.elements, card.licence) == (("Ar", "Kr"), "MIT")
    digest = shelf.model_digest("soft-spheres-noble")
    assert "soft_spheres" in sys.modules
    assert "soft_spheres.model" not in sys.modules
    own = tmp_path / "mine.json"  # a file says its family
    own.write_bytes(card.file.read_bytes())
    assert shelf.model_digest("mine.json", tmp_path) == digest
    assert shelf.files_of(own) == [own]
    assert open_model("mine.json", tmp_path).cutoff == 4.5


def test_a_misspelt_name_finds_it(here, tmp_path):
    with pytest.raises(ModelError, match="did you mean 'soft-spheres-noble'"):
        open_model("soft-sphere-noble")
    (tmp_path / "typo.json").write_text(json.dumps({"backend": "soft-sphere"}))
    with pytest.raises(ModelError, match="did you mean 'soft-spheres'"):
        open_model("typo.json", tmp_path)


def test_from_the_table_of_models_to_a_free_energy(site, tmp_path):
    """Server, client and analysis are processes of their own; each finds the package."""
    table = command(site, "models", where=tmp_path)
    assert "soft-spheres-noble" in table.stdout
    assert table.stderr == ""
    bulk("Ar", "fcc", 5.0, cubic=True).write(tmp_path / "ar.xyz")
    done = command(
        site,
        *("prepare", "switch-nvt", "ar.xyz", "run", "--alchemy", "Ar[0]->Kr"),
        *("--model", "soft-spheres-noble", "--temperature", "80", "--timestep", "2"),
        *("--equilibrate", "20", "--switch", "40", "--cycles", "2", "--seed", "3"),
        where=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = command(site, "run", "run", where=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    (replica,) = result["replicas"]
    assert replica["provenance"]["model"] == "soft-spheres-noble"
    # lattice energies are most of it at 80 K: 12 neighbours at a/√2, (1.5 − 1) (1 − r²/c²)⁴ each
    lattice = 12 * 0.5 * (1.0 - (5.0**2 / 2) / 4.5**2) ** 4
    assert replica["forward"] == pytest.approx([lattice] * 2, rel=0.2)
    assert replica["backward"] == pytest.approx([-lattice] * 2, rel=0.2)


# --- packages that do not ---------------------------------------------------------------------


def refused(caplog, *parts: str) -> None:
    """The second package is left out with one line; the first and the built-in ones work."""
    with caplog.at_level(logging.WARNING):
        names = [card.name for card in shelf.catalogue()]
    lines = [r.getMessage() for r in caplog.records if "other-models" in r.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    for part in parts:
        assert part in lines[0]
    assert names.count("soft-spheres-noble") == names.count("demo") == 1
    assert "mine" not in names
    assert open_model("soft-spheres-noble").name == "soft-spheres-noble"
    with pytest.raises(ModelError, match=r"unknown model 'mine'.*package other-models"):
        open_model("mine")


CARD = "ModelCard({name!r}, (), '', 1, '', '', Path(__file__))"
MODELS = "FAMILY = ModelFamily({family!r}, 'other:open', {suffixes}, lambda: [{cards}])\n"


def models(*names: str, family: str = "other", suffixes: tuple[str, ...] = ()) -> str:
    cards = ", ".join(CARD.format(name=name) for name in names)
    return MODELS.format(family=family, suffixes=suffixes, cards=cards)


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("import a_package_that_is_not_there", ["ModuleNotFoundError", "a_package_that_is_not"]),
        ("FAMILY = (", ["SyntaxError"]),
        ("raise RuntimeError('two\\nlines')", ["RuntimeError: two lines"]),
        ("FAMILY = 3", ["expected a ModelFamily, got a int"]),
        ("", ["AttributeError"]),
        ("FAMILY = ModelFamily('other', '', (), lambda: 1 / 0)", ["ZeroDivisionError"]),
        (models("mine", "demo"), ["a model 'demo' is there already"]),
        (models("mine", "mace-mpa-0"), ["a model 'mace-mpa-0' is there already"]),
        (models("mine", "mine"), ["a model 'mine' is there twice"]),
        (models("mine", family="chgnet"), ["a family 'chgnet' is there already"]),
        (models("mine", suffixes=(".model",)), ["*.model", "'mace'"]),
    ],
)
def test_a_broken_or_clashing_package_is_left_out(here, caplog, code, parts):
    other(here, code)
    refused(caplog, *parts)


def test_of_two_packages_with_one_name_the_first_in_the_alphabet_stays(here, caplog):
    other(here, models("soft-spheres-noble"))
    with caplog.at_level(logging.WARNING):
        card = next(c for c in shelf.catalogue() if c.name == "soft-spheres-noble")
    assert card.file.name == "other.py"
    assert "package soft-spheres: ValueError: a model 'soft-spheres-noble' is there" in caplog.text


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "package other-models: AttributeError"),
        (
            "def open(*a): raise OSError('no GPU\\nhere')",
            "package other-models: OSError: no GPU here",
        ),
        ("def open(*a): return 3", "made a int of model 'mine', expected a Backend"),
    ],
)
def test_an_opener_that_fails_is_one_line(here, code, message):
    other(here, models("mine") + code)
    with pytest.raises(ModelError, match=message):
        open_model("mine")
    assert open_model("demo").potential(AlchemicalSites.plain(["Cs"])) is not None
