"""A set of replicas, windows, points or stages is there whole, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from helpers import real_runs as rr

from alchemdriver.contract.files import UNFINISHED, whole_folder
from alchemdriver.contract.layout import find_runs
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.settings import Common
from alchemdriver.errors import InputError
from alchemdriver.prepare import mass_leg, tree
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.prepare.windows import prepare_windows
from alchemdriver.workflow import plan

SETTINGS = Settings(temperature=300.0, timestep=2.0, seed=1)


def oscillator_keys(tmp_path):
    return rr.oscillators(tmp_path / "m"), {
        "model": str(tmp_path / "m" / "osc.json"),
        "alchemy": "Cu->Au",
    }


def replicas(tmp_path, folder):
    structure, keys = oscillator_keys(tmp_path)
    prepare("switch-nvt", structure, folder, keys, SETTINGS, replicas=3)


def windows(tmp_path, folder):
    structure, keys = oscillator_keys(tmp_path)
    prepare_windows("windows-nvt", structure, folder, keys, [0.0, 0.5, 1.0], SETTINGS)


def points(tmp_path, folder):
    if not (tmp_path / "pimd").exists():
        rr.oscillator_run(tmp_path / "pimd", "switch-pimd", beads=2)
    mass_leg.write_points(read_input(tmp_path / "pimd"), folder, 3, 10)


def stages(tmp_path, folder):
    common = Common(
        model=str(tmp_path / "m" / "osc.json"),
        temperatures_K=(300.0,),
        pressure_bar=1.0,
        timestep_fs=2.0,
        md_steps=2000,
    )
    plan.prepare_crystal(rr.oscillators(tmp_path / "m"), folder, common)


SETS = {"replicas": replicas, "windows": windows, "points": points, "stages": stages}


def content(folder) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*"))


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("kind", SETS)
def test_what_fails_halfway_leaves_nothing(kind, exists, tmp_path, monkeypatch):
    folder = tmp_path / "inner" / "set"
    if exists:
        folder.mkdir(parents=True)
        if kind != "stages":  # which want an empty one
            (folder / "notes.txt").write_text("mine")
    if kind == "points":
        rr.oscillator_run(tmp_path / "pimd", "switch-pimd", beads=2)
    before = content(tmp_path / "inner") if exists else []
    stock, written = tree.write_xml, 0

    def full_disk(path, root):
        nonlocal written
        written += path.name == "input.xml" and "alchemdriver-" not in str(path)  # no draft
        if written == 2:
            raise OSError(28, "No space left on device", str(path))
        stock(path, root)

    monkeypatch.setattr(tree, "write_xml", full_disk)
    with pytest.raises(OSError, match="No space left"):
        SETS[kind](tmp_path, folder)
    assert (content(tmp_path / "inner") if (tmp_path / "inner").exists() else []) == before
    monkeypatch.undo()
    SETS[kind](tmp_path, folder)
    assert len([f for f in content(folder) if f.endswith("input.xml")]) >= 3
    assert not [f for f in content(tmp_path / "inner") if "/." in f"/{f}"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_an_interrupt_while_a_set_is_moved_leaves_a_mark(tmp_path, monkeypatch):
    """One input is in its place: the folder must not pass for a whole set."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    stock, moved = os.replace, 0

    def ctrl_c(a, b):
        nonlocal moved
        moved += str(b).endswith("input.xml") and UNFINISHED not in str(b)
        if moved == 2:
            raise KeyboardInterrupt
        stock(a, b)

    monkeypatch.setattr(os, "replace", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        replicas(tmp_path, folder)
    monkeypatch.undo()
    assert list(folder.glob(f"{UNFINISHED}*"))
    with pytest.raises(InputError):
        find_runs(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from prepare.test_whole_sets import replicas
stock, moves = os.replace, 0
def move(a, b):
    global moves
    moves += Path(b).name == "input.xml" and Path(b).parent.parent == Path(sys.argv[2])
    if moves == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    stock(a, b)
os.replace = move
os.rename = Path.rename = lambda a, b: os.kill(os.getpid(), signal.SIGKILL)
replicas(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def killed(tmp_path, folder) -> None:
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, "-c", KILLED, tmp_path, folder, tests]
    done = subprocess.run(command, env=rr.ENV, timeout=rr.LIMIT, check=False)
    assert done.returncode == -signal.SIGKILL


def test_half_a_set_never_counts_as_a_whole_one(tmp_path):
    killed(tmp_path, tmp_path / "new")  # before the one rename
    assert not (tmp_path / "new").exists()
    folder = tmp_path / "old"
    folder.mkdir()
    killed(tmp_path, folder)  # one replica is in its place, two are not
    assert len(list(folder.glob("replica-*/input.xml"))) == 1
    with pytest.raises(InputError, match="was stopped while it wrote this folder"):
        find_runs(folder)


def test_what_stands_in_the_way_is_found_before_anything_moves(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "start.xyz").write_text("another one")
    with pytest.raises(InputError, match=r"already holds another start\.xyz"):
        replicas_into(tmp_path / "a")
    assert content(tmp_path / "a") == ["start.xyz"]


def replicas_into(folder):
    with whole_folder(folder) as place:
        (place / "input.xml").write_text("new")
        (place / "start.xyz").write_text("new")
