"""What the README and the docs show is run here, so that it stays true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import ase
import ase.io
import pytest
from helpers import real_runs as rr

from alchemdriver.contract.parameters import KEYS
from alchemdriver.contract.run_input import read_input
from alchemdriver.prepare.demo import alpha_cspbi3
from alchemdriver.prepare.protocols import PROTOCOLS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place like the user's: a POSCAR with lead in it, and two finished replicas in run/."""
    s = alpha_cspbi3(1)
    ase.io.write(
        tmp_path / "POSCAR",
        ase.Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True),
        format="vasp",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run(number, folder):
    code = blocks("python")[number]
    if "run/replica-1" in code:
        for r in (1, 2):
            target = folder / "run" / f"replica-{r}"
            rr.oscillator_run(target, equilibrate=5, switch=10, cycles=2, seed=r)
            assert rr.command("run", target).returncode == 0
    exec(compile(code, "README.md", "exec"), {})


def test_the_prepare_command_of_the_readme_works(folder):
    text = next(b for b in blocks("") if "alchemdriver prepare" in b)
    line = text.replace("\\\n", " ").splitlines()[0]
    words = shlex.split(line)[1:]
    words[words.index("mace-mp-0-small")] = "demo"  # nothing is downloaded in tests
    done = rr.command(*words)
    assert done.returncode == 0, done.stderr
    run = read_input(folder / "run" / "replica-2" / "input.xml")
    assert run.temperature == 600.0
    assert run.schedule.total_steps == 4 * 2 * 50000


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_every_key_and_protocol_is_documented():
    docs = (ROOT / "docs" / "server-and-clients.md").read_text()
    for key in KEYS:
        assert f"`{key}`" in docs, key
    for protocol in PROTOCOLS:
        assert f"`{protocol.name}`" in README, protocol.name


def test_files_that_the_docs_name_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
