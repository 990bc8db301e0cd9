"""Runs made by earlier code: analysed to the digit, resumed bit for bit, prepared byte for byte.

``freeze.py`` made the archives.  Where this machine is not the one that computed them, what a
processor decides is compared to eight digits instead.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers import real_runs as rr

from alchemdriver import analysis
from alchemdriver.contract.layout import find_runs
from frozen import freeze

HERE = Path(__file__).parent
NAMES = sorted(freeze.RUNS)
STAGES = ("crystal", "vacancy", "transmute")
DIGITS = 1e-8
# What says where and with what an analysis ran, and not what it found.
CIRCUMSTANCES = {"folder", "versions"}


def differences(old, new, where: str, exact: bool) -> list[str]:
    """Every place where *new* does not say what *old* said; *new* may say more."""
    if isinstance(old, dict):
        if not isinstance(new, dict):
            return [f"{where}: {old} → {new}"]
        missing = [f"{where}.{key} is gone" for key in old if key not in new]
        common = [key for key in old if key in new and key not in CIRCUMSTANCES]
        return missing + [
            d for key in common for d in differences(old[key], new[key], f"{where}.{key}", exact)
        ]
    if isinstance(old, list):
        if not isinstance(new, list) or len(old) != len(new):
            return [f"{where}: {old} → {new}"]
        return [
            d
            for k, (a, b) in enumerate(zip(old, new, strict=True))
            for d in differences(a, b, f"{where}[{k}]", exact)
        ]
    if isinstance(old, float) and isinstance(new, float) and not exact:
        same = math.isclose(old, new, rel_tol=DIGITS, abs_tol=1e-9)
    else:
        same = old == new
    return [] if same else [f"{where}: {old!r} → {new!r}"]


def stored(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# --- analysis -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if n != "npt"])  # it has no free energy
def test_a_finished_run_is_analysed_to_the_digit(name, unpacked):
    folder, exact = unpacked(name)
    run = folder / "finished" / "run"
    results = sorted(run.rglob("result.json"))
    before = {path: stored(path) for path in results}
    assert before
    done = rr.command("analyze", run)
    assert done.returncode == 0, done.stderr
    if name in STAGES:
        for path in results:
            if path.parent != run:
                again = rr.command("analyze", path.parent)
                assert again.returncode == 0, again.stderr
    for path, old in before.items():
        found = differences(old, stored(path), path.relative_to(run).as_posix(), exact)
        assert not found, "\n".join(found)


# --- preparing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_same_command_prepares_the_same_inputs(name, unpacked):
    folder, _ = unpacked(name)
    write, words, *_ = freeze.RUNS[name]
    fresh = folder / "fresh"
    fresh.mkdir()
    write(fresh)
    done = rr.command("prepare", *words, cwd=fresh)
    assert done.returncode == 0, done.stderr
    old = folder / "prepared"
    kept = {p.relative_to(old) for p in old.rglob("*") if p.is_file()}
    assert kept == {p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file()}
    for path in sorted(kept):
        if path.suffix in (".xml", ".xyz"):
            assert (fresh / path).read_text() == (old / path).read_text(), path


def test_runs_of_every_kind_are_found_by_name(unpacked):
    folder, _ = unpacked("windows-nvt")
    inputs = find_runs(folder / "finished" / "run")
    assert [p.parent.name for p in inputs] == ["window-1", "window-2", "window-3"]
    assert analysis.analyze(inputs, write=False).integral is not None
