"""What the driver decides, with workers that answer at once; real ones are in test_workers.py."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from concurrent.futures import Future

import pytest
from helpers.plans import write_plan

from alchemdriver.campaign import driver as d
from alchemdriver.campaign import executors, journal, lease, planning, slices
from alchemdriver.campaign.plan import read_plan
from alchemdriver.campaign.slices import Analysed, Ended
from alchemdriver.campaign.status import survey
from alchemdriver.errors import Busy, InputError, RunError


class AtOnce:
    """Two workers; *answers*: how slices of a run end, one after the other, the last for ever."""

    slots, device = 2, "cpu"

    def __init__(self, answers=None, errors=(), lost=0):
        self.lost = lost  # workers that die in an analysis
        self.answers = answers or {}
        self.errors = dict(errors)  # replicas, or (case, replicas) → SE (eV) of an analysis
        self.slices = Counter()

    def submit(self, function, root, *arguments):
        future = Future()
        if function is slices.analyse:
            if self.lost:
                self.lost -= 1
                future.set_exception(RuntimeError("worker lost"))
                return future
            runs = arguments[1]
            n = len({run.replica for run in runs})
            error = self.errors.get((arguments[0].name, n)) or self.errors.get(n, 0.01)
            future.set_result(Analysed(n, -0.1, error, "atom"))
            return future
        run = arguments[1]
        given = self.answers.get(run.name) or self.answers.get(run.name.split("/")[1], ["done"])
        answer = given[min(self.slices[run.name], len(given) - 1)]
        self.slices[run.name] += 1
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            step = {"done": 100, "again": 10 * self.slices[run.name]}.get(answer)
            future.set_result(Ended(answer, step, 1.0, "n1", "" if step else "its last line"))
        return future

    def trouble(self):
        return None

    def close(self):
        pass


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """drive(answers, errors, **plan): a campaign of 2 x 2 runs driven to its end; its workers."""
    monkeypatch.setattr(d, "PAUSE", 0.0)
    monkeypatch.setattr(d, "LOOK", 0.01)
    root = tmp_path / "c"

    def drive(answers=None, errors=(), top="", lost=0, **plan):
        if not root.exists():
            planning.save(planning.draft(write_plan(tmp_path, top, **plan)), root)
        workers = AtOnce(answers, errors, lost)
        monkeypatch.setattr(d, "start", lambda choice, plan, root: workers)
        d.drive(root, "local", lambda line: None)
        return workers

    drive.root = root
    return drive


def test_slices_follow_each_other_and_nothing_is_run_twice(campaign):
    workers = campaign({"replica-2": ["again", "again", "done"]})
    assert sorted(workers.slices.values()) == [1, 1, 3, 3]
    status = survey(campaign.root)
    assert status.runs == {"done": 4}
    assert status.over
    assert status.worker_hours == pytest.approx(8 / 3600)
    assert [c.value for c in status.cases] == [-0.1, -0.1]
    assert campaign().slices == {}


def test_what_failed_is_tried_again_as_often_as_stated(campaign):
    lost = RuntimeError("worker lost")
    workers = campaign({"replica-1": ["failed", lost, "done"]})
    assert sorted(workers.slices.values()) == [1, 1, 3, 3]
    assert survey(campaign.root).runs == {"done": 4}


def test_what_fails_for_good_is_reported_and_the_rest_goes_on(campaign):
    with pytest.raises(RunError, match=r"replica-1 failed: its last line \(and 1 more\)"):
        campaign({"replica-1": ["failed"]})
    status = survey(campaign.root)
    assert status.runs == {"failed": 2, "done": 2}
    assert [why for _, why in status.failures] == ["its last line"] * 2
    assert [c.value for c in status.cases] == [-0.1, -0.1], "of the replicas that are done"
    workers = campaign()  # the cause was removed
    assert sorted(workers.slices.values()) == [1, 1]
    assert survey(campaign.root).runs == {"done": 4}


def test_what_is_refused_is_not_tried_again(campaign):
    with pytest.raises(RunError, match="and 1 more"):
        campaign({"replica-1": ["refused"]})


def test_a_step_forward_makes_failures_anew(campaign):
    workers = campaign({"replica-1": ["failed", "failed", "again", "failed", "failed", "done"]})
    assert sorted(workers.slices.values()) == [1, 1, 6, 6]


def test_what_waits_after_a_failure_is_not_sent_twice(campaign, monkeypatch):
    """Decisions about another case put the queue in order meanwhile."""
    monkeypatch.setattr(d, "PAUSE", 0.3)
    name = "cu_Cu-to-Au_osc_300K/replica-1"
    workers = campaign(
        {name: ["failed", "done"]}, errors={2: 0.004, 4: 0.001}, top="error = 3.0", replicas="4"
    )
    assert workers.slices[name] == 2
    assert set(workers.slices.values()) == {1, 2}


def test_a_folder_that_somebody_else_runs_in_is_waited_for(campaign):
    workers = campaign({"replica-1": ["busy"] * 9 + ["done"]})
    assert max(workers.slices.values()) == 10


def test_replicas_are_added_until_the_error_is_small_enough(campaign):
    workers = campaign(errors={2: 0.004, 4: 0.0035, 6: 0.0029}, top="error = 3.0", replicas="9")
    assert len(workers.slices) == 2 * 6, "2, then 2 (4/3)² = 3.6, then 4 (3.5/3)² = 5.4"
    said = [e.why for e in journal.events(campaign.root) if e.what in ("more", "enough")]
    assert said[0] == "error 4 meV of 3 asked after 2 replicas: as far as replica 4"
    assert survey(campaign.root).runs["not needed"] == 2 * 3


def test_the_case_that_is_furthest_from_its_error_comes_first(campaign):
    """Both are released as far as replica 4; the second case lacks more."""
    first, second = "cu_Cu-to-Au_osc_300K", "cu_Cu-to-Au_osc_400K"
    errors = {(first, 2): 0.004, (second, 2): 0.0042, 4: 0.001}
    workers = campaign(errors=errors, top="error = 3.0", replicas="4")
    sent = [e.of for e in journal.events(campaign.root) if e.what == "sent"]
    assert sent[:4] == [f"{case}/replica-{r}" for r in (1, 2) for case in (first, second)]
    assert sent[4:6] == [f"{second}/replica-{r}" for r in (3, 4)]
    assert len(workers.slices) == 8


def test_a_killed_driver_leaves_nothing_behind(campaign, tmp_path):
    campaign()
    path = campaign.root / journal.FILE
    lines = path.read_text().splitlines(keepends=True)
    n = next(i for i, line in enumerate(lines) if '"done"' in line)
    path.write_text("".join(lines[:n]) + lines[n][:20])  # killed while it wrote that one
    assert survey(campaign.root).runs == {"waiting": 4}, "nobody runs what was sent out"
    workers = campaign()
    assert set(workers.slices.values()) == {1}
    assert survey(campaign.root).runs == {"done": 4}


def test_two_drivers_are_refused_on_one_machine_and_on_two(campaign, monkeypatch):
    campaign()
    with lease.only_driver(campaign.root), pytest.raises(Busy, match=f"pid {os.getpid()}"):
        campaign()
    holder = lease.Holder("elsewhere", 1, time.time())
    lease.HOLDER.write(campaign.root / lease.FILE, holder)
    with pytest.raises(Busy, match="a driver runs on elsewhere"):
        campaign()
    # lost: no sign of life for long; or of this machine, where the lock knows better
    for host, alive in (("elsewhere", time.time() - 2 * lease.DEAD), (socket.gethostname(), 9e9)):
        lease.HOLDER.write(campaign.root / lease.FILE, lease.Holder(host, 1, alive))
        campaign()


def test_a_journal_that_is_none_gives_one_line(campaign):
    campaign()
    with open(campaign.root / journal.FILE, "a") as f:
        f.write('{"time": 1.0, "what": "dome", "of": "x"}\n')
    with pytest.raises(RunError, match=r"line \d+.what: expected .*did you mean 'done'"):
        survey(campaign.root)


def test_an_analysis_whose_worker_dies_is_done_again(campaign):
    workers = campaign(lost=2)
    assert workers.lost == 0
    assert [c.value for c in survey(campaign.root).cases] == [-0.1, -0.1]


def test_gpus_are_given_out_as_often_as_the_plan_says(tmp_path, monkeypatch):
    """Nothing is started: this is what Parsl is told."""
    pytest.importorskip("parsl")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    plan = read_plan(write_plan(tmp_path, rest="[run]\nruns_per_gpu = 2"))
    (executor,) = executors._local(plan).executors
    assert executor.available_accelerators == ["2", "2", "5", "5"]
    assert executor.workers_per_node == 4


@pytest.mark.parametrize(
    ("choice", "text", "words"),
    [
        ("slrum", None, "did you mean 'slurm'"),
        ("slurm", None, "expected a table"),
        ("gone.py", None, "gone.py does not exist"),
        ("mine.py", "x = 1", "expected one parsl Config, got 0"),
        ("mine.py", "x = 1 / 0", "ZeroDivisionError"),
        (
            "mine.py",
            "from parsl.config import Config\nc = Config()",
            "expected workers that are processes",
        ),
    ],
)
def test_a_bad_executor_gives_one_line(tmp_path, monkeypatch, choice, text, words):
    pytest.importorskip("parsl")
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / choice).write_text(text)
    with pytest.raises(InputError, match=words):
        executors.start(choice, read_plan(write_plan(tmp_path)), tmp_path)
