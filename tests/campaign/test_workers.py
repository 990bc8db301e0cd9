"""Campaigns on real workers: this machine's, and those of a real Slurm, with kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers import real_runs as rr
from helpers import slurm
from helpers.plans import write_plan

from alchemdriver.campaign import journal, planning, record, slices
from alchemdriver.campaign.folders import ensure_folder
from alchemdriver.campaign.plan import RunSettings
from alchemdriver.campaign.status import survey

pytest.importorskip("parsl")

SLURM = """
[slurm]
walltime = "0:05:00"
partition = "debug"
jobs = 2
cores_per_node = 1
"""
LENGTHS = {"equilibrate": "100", "switch": "400"}  # 1000 steps, about three seconds when slow
LIMIT = 240  # s


ONE = {"temperatures": "[300]", "replicas": "1"}


def make(folder: Path, latency: str = "2e-3", **plan: str) -> Path:
    """A campaign whose first runs are slow enough to be disturbed; latency (s) of every step."""
    planning.save(planning.draft(write_plan(folder, rest=SLURM, **LENGTHS, **plan)), folder / "c")
    campaign = record.read(folder / "c")
    for run in campaign.runs[:2]:
        path = ensure_folder(folder / "c", campaign, run) / "input.xml"
        path.write_text(path.read_text().replace("<latency>1e-4<", f"<latency>{latency}<"))
    return folder / "c"


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """The first run of the campaigns below, run by hand and never disturbed."""
    root = tmp_path_factory.mktemp("by-hand")
    planning.save(planning.draft(write_plan(root, **LENGTHS, **ONE)), root / "c")
    campaign = record.read(root / "c")
    folder = ensure_folder(root / "c", campaign, campaign.runs[0])
    done = rr.command("run", folder, "--threads", 1)
    assert done.returncode == 0, done.stderr
    return folder


def assert_same(root: Path, other: Path) -> None:
    """Every row and ∂H/∂λ of the first run to the last digit, whatever happened on the way."""
    folder = root / "runs" / record.read(root).runs[0].name
    assert rr.rows(folder / "run.out") == rr.rows(other / "run.out")
    assert rr.frames(folder / "run.dHdlambda_0") == rr.frames(other / "run.dHdlambda_0")
    assert max(rr.rows(folder / "run.out")) == 1000


def begun(root: Path, process: subprocess.Popen, n: int) -> list[Path]:
    """Run folders with a step done, as soon as there are *n*."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        files = sorted(root.glob("runs/*/*/run.out"))
        found = [f.parent for f in files if max(rr.rows(f), default=-1) >= 20]
        if len(found) >= n:
            return found
        time.sleep(0.05)
    raise AssertionError((root.parent / "log").read_text())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def server_in(folder: Path) -> int:
    return int((folder / ".alchemdriver.lock").read_text())


def history(root: Path) -> Counter[str]:
    return Counter(event.what for event in journal.events(root))


def test_a_worker_that_is_killed_costs_a_second_start_and_no_digit(tmp_path, by_hand):
    root = make(tmp_path, **ONE)
    driver = rr.start("campaign", "run", root, log=tmp_path / "log")
    folder = begun(root, driver, 1)[0]
    other = rr.command("campaign", "run", root)
    assert other.returncode == 2
    assert f"error: another driver (pid {driver.pid}) runs" in other.stderr
    os.kill(parent_of(server_in(folder)), signal.SIGKILL)
    assert driver.wait(LIMIT) == 0, (tmp_path / "log").read_text()
    assert history(root) == {"driver": 1, "sent": 2, "failed": 1, "done": 1, "analysed": 1}
    assert_same(root, by_hand)


def test_a_slice_stops_itself_and_the_next_goes_on(tmp_path, by_hand, monkeypatch):
    """As in a batch job that is about to end."""
    root = make(tmp_path, latency="1.1e-2", **ONE)  # 11 s at least
    campaign = record.read(root)
    (run,) = campaign.runs
    ended = []
    while not ended or (ended[-1].what == "again" and len(ended) < 9):
        monkeypatch.setenv(slices.BLOCK_ENDS, str(time.time() + 11.0))
        ended.append(slices.compute(str(root), campaign, run, RunSettings(), "cpu"))
    assert ended[-1].what == "done", ended
    assert len(ended) > 1
    assert_same(root, by_hand)


def queue(env) -> list[str]:
    done = subprocess.run(["squeue", "-h"], env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(slurm.why_not() is not None, reason=str(slurm.why_not()))
def test_slurm_with_a_cancelled_job_and_a_killed_driver(tmp_path, by_hand):
    root = make(tmp_path)
    with slurm.cluster(tmp_path / "slurm") as env:
        command = [sys.executable, "-m", "alchemdriver", "campaign", "run", str(root)]
        command += ["--executor", "slurm"]
        with open(tmp_path / "log", "w") as log:
            driver = subprocess.Popen(command, env=env, stdout=log, stderr=log)
            begun(root, driver, 2)
            jobs = subprocess.run(
                ["squeue", "-h", "-o", "%i %N"], env=env, capture_output=True, text=True, check=True
            ).stdout.split()
            assert sorted(jobs[1::2]) == ["n1", "n2"]
            subprocess.run(["scancel", jobs[0]], env=env, check=True)
            driver.kill()
            driver.wait()
            again = subprocess.run(command, env=env, stdout=log, stderr=log, timeout=LIMIT)
        assert again.returncode == 0, (tmp_path / "log").read_text()
        deadline = time.monotonic() + LIMIT  # a job that was told to end takes a moment
        while any("CG" not in line for line in queue(env)):
            assert time.monotonic() < deadline, queue(env)
            time.sleep(0.5)
    found = history(root)
    assert found["done"] == 4
    assert found["driver"] == 2
    assert survey(root).runs == {"done": 4}
    assert all(case.error is not None for case in survey(root).cases), "analysed"
    assert_same(root, by_hand)
