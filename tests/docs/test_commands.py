"""What README and docs show can be typed: it is run somewhere or says why not, and it parses."""

from __future__ import annotations

import runpy
import shlex
import shutil
from pathlib import Path

import ase
import ase.io
import doc_blocks
import pytest
import typer
from ase.build import bulk
from doc_blocks import REASONS, ROOT, TUTORIALS, Block, blocks, calls, pages
from helpers import real_runs as rr

from alchemdriver.cli.main import app
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AlchemdriverError
from alchemdriver.prepare.demo import alpha_cspbi3

ALL = [block for page in pages() for block in blocks(page) if block.executable]
HERE = Path(__file__).relative_to(ROOT).as_posix()
README = blocks(ROOT / "README.md")


def complaint(block: Block) -> str | None:
    """Why nobody knows that *block* works; None if somebody does."""
    if block.mark is None:
        return None if block.page.is_relative_to(TUTORIALS) else "neither run nor marked"
    if block.mark == "not run":
        return None if block.why in REASONS else f"not run: {block.why}, expected one of {REASONS}"
    test = ROOT / str(block.why)
    if not test.is_file():
        return f"run: there is no {block.why}"
    if block.why == HERE or block.language == "python":
        return None
    words = {w for line in block.commands for call in calls(line) for w in call[:1] if w[0] != "-"}
    words |= {line.split()[1] for line in block.commands if line.startswith("make ")}
    said = test.read_text()
    return (
        None if not words or any(w in said for w in words) else f"{block.why} has none of {words}"
    )


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_is_run_or_says_why_not(block):
    assert complaint(block) is None


def test_a_new_block_that_nobody_runs_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(doc_blocks, "ROOT", tmp_path)
    page = tmp_path / "page.md"

    def said(before: str) -> str | None:
        page.write_text(f"{before}```\nalchemdriver models\n```\n")
        (block,) = blocks(page)
        return complaint(block)

    assert said("") == "neither run nor marked"
    assert "expected one of" in said("<!-- not run: lazy -->\n")
    assert "there is no" in said("<!-- run: tests/nothing.py -->\n")
    assert said("<!-- not run: hours -->\n") is None


# --- every line parses --------------------------------------------------------------------------


def parse(arguments: list[str]) -> None:
    """Raise what the command line would say to *arguments*, without doing anything."""
    command, context, rest = typer.main.get_command(app), None, arguments
    while True:
        context = command.make_context(command.name, list(rest), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*context._protected_args, *context.args]
        _, command, rest = command.resolve_command(context, rest)


LINES = [(b, call, line) for b in ALL for line in b.commands for call in calls(line)]


@pytest.mark.parametrize(
    ("block", "call", "line"), LINES, ids=lambda x: str(x) if isinstance(x, Block) else ""
)
def test_every_command_parses(block, call, line):
    try:
        parse(call)
    except typer.Exit:
        assert {"--help", "--version"} & set(call)
    except Exception as err:
        if '|| echo "status' not in line:  # where a page shows what is refused
            pytest.fail(f"{block}: alchemdriver {shlex.join(call)}: {err or type(err).__name__}")


@pytest.mark.parametrize(
    "line",
    [
        "run demo-run --cuda",
        "prepare switch-npt POSCAR run --alchemy 'Pb->Sn' --model demo --temperature 300",
        "prepare switch-npt POSCAR run --alchemy 'Pb->Sn' --model demo --temperature 300 "
        "--pressure 1 --site 0",
        "prepare switch POSCAR run",
        "analyse run",
    ],
)
def test_a_line_that_is_wrong_does_not_parse(line):
    with pytest.raises((AlchemdriverError, Exception)) as caught:
        parse(shlex.split(line))
    assert not isinstance(caught.value, (AttributeError, TypeError)), caught.value


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_no_two_commands_of_a_page_write_one_folder(page):
    folders = [
        call[3 if call[0] == "prepare" else 2]
        for block in blocks(page)
        for line in block.commands
        for call in calls(line)
        if call[:1] in (["prepare"], ["adopt"]) and not call[1].startswith("-") and len(call) > 3
    ]
    assert len(folders) == len(set(folders)), folders


# --- README and Python examples, run ------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place like the user's, with a POSCAR and a rattled crystal."""
    s = alpha_cspbi3(1)
    atoms = ase.Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True)
    ase.io.write(tmp_path / "POSCAR", atoms, format="vasp")
    argon = bulk("Ar", "fcc", a=5.3, cubic=True).repeat((2, 1, 1))
    argon.rattle(0.1, seed=1)
    ase.io.write(tmp_path / "rattled.vasp", argon, format="vasp")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_can_be_typed_in_order(folder):
    """Its prepare lines with the embedded model; what needs hours is replaced by a short run."""
    for block in README:
        if block.language == "python":
            exec(compile(block.text, "README.md", "exec"), {})
        for line in block.commands:
            for call in calls(line):
                if call[0] == "prepare":
                    words = ["demo" if w == "mace-mp-0-small" else w for w in call]
                    done = rr.command(*words)
                    assert done.returncode == 0, done.stderr
                elif call[0] == "run":
                    target = folder / call[1]
                    run = read_input(target / "replica-2" / "input.xml")
                    assert (run.temperature, run.schedule.total_steps) == (600.0, 4 * 2 * 50000)
                    shutil.rmtree(target)
                    for r in (1, 2):
                        replica = target / f"replica-{r}"
                        rr.oscillator_run(replica, equilibrate=5, switch=10, cycles=2, seed=r)
                        assert rr.command("run", replica).returncode == 0


EXAMPLES = sorted({b.page for b in ALL if b.language == "python" and b.why == HERE})


@pytest.mark.parametrize("page", [p for p in EXAMPLES if p.parent != ROOT], ids=lambda p: p.name)
def test_python_examples_run(page, folder):
    for block in blocks(page):
        if block.language == "python" and block.why == HERE:
            first = block.text.split("\n", 1)[0]
            path = folder / (first.removeprefix("# ") if first.endswith(".py") else "example.py")
            path.write_text(block.text)
            runpy.run_path(str(path))


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for block in README:
        for line in block.commands:
            if line.startswith("make "):
                assert f"\n{line.split()[1]}:" in makefile
