"""The verbs of composition: what they write, that they resume, and one line for every mistake."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import mace  # noqa: F401  must come before e3nn
import pytest
from composition.test_order import HEADER, IODIDE

from alchemdriver.cli import main
from alchemdriver.errors import AlchemdriverError, InputError, RunError

ROOT = Path(__file__).parents[2]
FAST = ["--force", 0.02, "--stress", 0.001, "--optimiser", "bfgs"]


@pytest.fixture
def folder(tmp_path):
    IODIDE.parent().write(tmp_path / "cubic.extxyz")
    return tmp_path


def verb(folder, name, *words):
    """The command in this process: importing torch for every case would take minutes."""
    common = [name, folder / "cubic.extxyz", "--model", "demo", "--out", folder / "out"]
    return main.app([str(w) for w in (*common, *words)], standalone_mode=False) or 0


def test_relax_scans_with_supercells_and_resumes(folder, capsys):
    words = ["--alchemy", "Pb->Sn", "--scan", 2, "--random", 2, "--supercell", "1x1x2", *FAST]
    assert verb(folder, "relax", *words) == 0
    printed = capsys.readouterr().out
    out = folder / "out"
    for name in ("scan.jsonl", "table.txt", "relaxed.extxyz", "a.png", "volume.png"):
        assert (out / name).stat().st_size > 0
    assert "Vegard" in printed
    assert "±" in printed
    before = (out / "scan.jsonl").read_bytes()
    assert verb(folder, "relax", *words) == 0
    assert (out / "scan.jsonl").read_bytes() == before
    with pytest.raises(RunError, match="other settings"):
        verb(folder, "relax", "--alchemy", "Pb->Sn", "--scan", 2, *FAST)


def test_optimize_says_where_it_came_nearest_and_exits_with_1(folder, capsys):
    status = verb(
        folder, "optimize", "--alchemy", "Pb->Sn", "--target", "a=6.1", "--tolerance", 0.01
    )
    assert status == 1
    assert "target not met" in capsys.readouterr().out
    content = json.loads((folder / "out" / "optimum.json").read_text())
    assert content["met"] is False
    for step in content["history"]:
        for c in step["compositions"]:
            assert abs(sum(c) - 1) < 1e-12
            assert min(c) >= 0


def test_schemes_writes_energies_and_times(folder):
    words = ["--alchemy", "Pb->Sn", "--points", 3, "--cells", "1", "--repeats", 1]
    assert verb(folder, "schemes", *words) == 0
    content = json.loads((folder / "out" / "schemes.json").read_text())
    assert set(content["energy_eV"]) == {"asymmetric", "symmetric", "embedding", "linear"}
    assert (folder / "out" / "schemes.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("relax", ["--alchemy", "Pb->Sn"], "either --weights"),
        ("relax", ["--alchemy", "Pb->Sn", "--weights", "0.5"], "expected 2 numbers"),
        ("relax", ["--alchemy", "Pb->Sn", "--weights", "0.5,0.6"], "sum to 1"),
        ("relax", ["--alchemy", "Pb->Ge", "--weights", "1,0"], "does not know Ge"),
        ("relax", ["--alchemy", "Pb->Sn", "--scan", 3, "--cell", "cube"], "cell: expected one"),
        ("optimize", ["--alchemy", "Pb->Sn", "--target", "biaxal"], "did you mean 'biaxial'"),
        ("optimize", ["--alchemy", "Pb->Sn", "--target", "a=x"], "expected a length in Å"),
        ("schemes", ["--alchemy", "Pb->Sn->Cs"], "two states"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_that_looks_finished(folder, name, words, message):
    with pytest.raises(AlchemdriverError, match=re.escape(message)) as caught:
        verb(folder, name, *words)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("out/*.json"))


def test_order_refuses_a_bad_list(folder):
    (folder / "list.csv").write_text(HEADER + "Cs,Pb,Sn,I,6.4,maybe\n")
    words = ["order", folder / "list.csv", "--model", "demo", "--out", folder / "out"]
    with pytest.raises(InputError, match="line 2: label"):
        main.app([str(w) for w in words], standalone_mode=False)


def test_python_of_the_docs_runs(capsys):
    page = (ROOT / "docs" / "composition.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(code, "composition.md", "exec"), {})
    assert "target" in capsys.readouterr().out


@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "examples").glob("figure*.py")))
def test_examples_start_and_explain_themselves(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    before = set(sys.modules)
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    finally:  # examples' own modules have plain names
        for name in {"common", "structures", "free_energy"} & (set(sys.modules) - before):
            del sys.modules[name]
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "--model" in printed
    assert "--out" in printed
