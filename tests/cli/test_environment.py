"""Locales, homes and names: what a run gives does not depend on them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from frozen import freeze
from helpers import real_runs as rr
from rich.console import Console

from alchemdriver.cli.show import Display
from alchemdriver.execute.progress import Progress


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two replicas, its structure and its model."""
    home = tmp_path_factory.mktemp("finished")
    with tarfile.open(Path(freeze.__file__).with_name("switch-nvt.tar.xz")) as archive:
        archive.extractall(home, filter="data")
    return home / "finished"


def ours(*words, code="", **env) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "alchemdriver"]
    if code:
        command = [sys.executable, "-c", code]
    plain = {k: v for k, v in rr.ENV.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    return subprocess.run(
        [*command, *map(str, words)], env=plain | env, capture_output=True, timeout=rr.LIMIT,
        check=False,
    )  # fmt: skip


def locales(folder: Path) -> dict[str, dict[str, str]]:
    """Environments of other encodings than UTF-8."""
    found = {"C": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}}
    if shutil.which("localedef"):
        name = "de_DE.ISO-8859-1"
        made = subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / name],
            capture_output=True, check=False,
        )  # fmt: skip
        if made.returncode == 0:
            found["ISO-8859-1"] = {"LOCPATH": str(folder), "LC_ALL": name}
    return found


def test_a_result_is_the_same_in_every_locale(finished, tmp_path):
    results = {}
    for name, env in {"UTF-8": {"LC_ALL": "C.UTF-8"}, **locales(tmp_path)}.items():
        out = tmp_path / "out"  # whose name is in the file
        done = ours("analyze", finished / "run", "--out", out, **env)
        assert done.returncode == 0, done.stderr
        results[name] = (out / "result.json").read_bytes()
    assert len(results) >= 2
    assert len(set(results.values())) == 1
    assert "Δ" in results["C"].decode("utf-8")


def test_names_that_other_programs_take_apart(finished, tmp_path):
    """ASE splits names at '@', rich reads '[red]', a shell splits at spaces."""
    structure = tmp_path / "c@u [red] 0.xyz"
    shutil.copy(finished / "cu.xyz", structure)
    shutil.copy(finished / "osc.json", tmp_path)
    folder = tmp_path / "x@1 [red] y"
    words = "--alchemy Cu->Au --temperature 300 --timestep 2 --equilibrate 10 --switch 10"
    done = ours(
        "prepare", "switch-nvt", structure, folder, *words.split(), "--cycles", 1, "--model",
        tmp_path / "osc.json", PYTHONUTF8="0", LC_ALL="C",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"alchemdriver run '{folder}'" in done.stdout.decode()
    console = Console(width=200)
    with console.capture() as shown:
        Display(console).report(folder.name, Progress(1, 10, 0.5, "forward", 300.0), False)
    assert "x@1 [red] y: step 1/10" in shown.get()


NOBODY = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
os.environ.pop("HOME", None)
import alchemdriver.__main__ as command
sys.argv = ["alchemdriver", *sys.argv[1:]]
command.start()
"""


def test_a_user_without_home_or_passwd_entry(finished, tmp_path):
    env = {"MPLCONFIGDIR": str(tmp_path)}
    shown = ours("models", code=NOBODY, **env)
    assert shown.returncode == 0, shown.stderr
    assert b"demo-fe" in shown.stdout
    words = "--alchemy Cu->Sn --temperature 300 --timestep 2 --equilibrate 10 --switch 10"
    done = ours(
        "prepare", "switch-nvt", finished / "cu.xyz", tmp_path / "a", *words.split(), "--model",
        "mace-mp-0-small", "--cycles", 1, code=NOBODY, **env,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert b"set XDG_CACHE_HOME" in done.stderr
    analysed = ours("analyze", finished / "run", "--out", tmp_path / "o", code=NOBODY, **env)
    assert analysed.returncode == 0, analysed.stderr
    assert json.loads((tmp_path / "o" / "result.json").read_text())["totals"]
