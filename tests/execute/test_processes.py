"""Processes end when and how they should; terminals may do what they like."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import faults
from helpers import real_runs as rr

from alchemdriver.cli.show import Display
from alchemdriver.contract.run_input import read_input
from alchemdriver.execute import children
from alchemdriver.execute.progress import Progress
from alchemdriver.server import checkpoints

LENGTHS = {"equilibrate": 500, "switch": 1500, "cycles": 1}


def slow(text: str) -> str:
    """Some 2 ms a step, so that there is time to disturb it; 8 s in all."""
    return text.replace("<latency>1e-4<", "<latency>2e-3<")


@pytest.fixture
def folder(tmp_path):
    rr.oscillator_run(tmp_path / "a", edit=slow, **LENGTHS)
    return tmp_path / "a"


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def wait_until(condition, limit=rr.LIMIT) -> bool:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR1])
def test_children_do_not_outlive_their_supervisor(folder, how):
    supervisor = rr.start("run", folder, log=folder.parent / "run.log")
    rr.wait_for_step(folder / "run.out", 20, supervisor)
    pids = faults.children(supervisor, "server") + faults.children(supervisor, "client")
    assert len(pids) == 2
    words = Path(f"/proc/{pids[0]}/cmdline").read_text().split("\0")
    sockets = Path(words[words.index("--socket-prefix") + 1])  # ends with a slash
    assert (sockets / "owner").exists()
    supervisor.send_signal(how)
    assert supervisor.wait(rr.LIMIT) == -how
    assert wait_until(lambda: not any(map(alive, pids)))
    stopped = checkpoints.latest(read_input(folder))
    assert stopped.step >= 20, "the server was to write its RESTART"
    if how == signal.SIGUSR1:
        return
    # the next start goes on at once, and tidies up after the dead one
    again = rr.start("run", folder, log=folder.parent / "run.log")
    rr.wait_for_step(folder / "run.out", stopped.step + 5, again)
    assert f"a: resuming from step {stopped.step}" in (folder.parent / "run.log").read_text()
    assert not sockets.exists()
    again.send_signal(signal.SIGINT)
    assert again.wait(rr.LIMIT) == 130


def test_folders_of_sockets_of_dead_runs_are_removed_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "from alchemdriver.execute.children import socket_folder as f; print(f())"
    dead = subprocess.run(
        [sys.executable, "-c", code], env={**rr.ENV, "TMPDIR": str(tmp_path)}, text=True,
        capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    (tmp_path / "alchemdriver-of-somebody").mkdir()
    assert Path(dead).exists()
    first = children.socket_folder()
    assert not Path(dead).exists()
    second = children.socket_folder()
    assert Path(first).exists()
    assert (tmp_path / "alchemdriver-of-somebody").exists()
    for made in (first, second):
        children.remove_sockets(made)
        assert not Path(made).exists()


def in_shell(script: str, log: Path) -> subprocess.Popen:
    """*script* in a shell of its own, which starts $RUN."""
    run = f"{sys.executable} -m alchemdriver run"
    with open(log, "w") as out:
        return subprocess.Popen(
            ["bash", "-c", script], env={**rr.ENV, "RUN": run}, stdout=out, stderr=out,
            stdin=subprocess.DEVNULL, start_new_session=True, cwd=log.parent,
        )  # fmt: skip


def test_nohup_and_the_background_of_a_shell(folder):
    """An inherited ignored SIGHUP stays ignored; SIGINT, which a shell ignores for what it starts
    in its background, stops cleanly."""
    log = folder.parent / "run.log"
    shell = in_shell(f"nohup $RUN {folder} & echo $! > pid; wait $!", log)
    rr.wait_for_step(folder / "run.out", 20, shell)
    pid = int((folder.parent / "pid").read_text())
    os.kill(pid, signal.SIGHUP)
    step = max(rr.rows(folder / "run.out"))
    rr.wait_for_step(folder / "run.out", step + 50, shell)
    assert shell.poll() is None
    assert alive(pid)
    os.kill(pid, signal.SIGINT)
    assert shell.wait(rr.LIMIT) == 130
    assert "continue with: alchemdriver run" in log.read_text()
    assert (folder / "RESTART").exists()


def test_a_terminal_that_goes_away_does_not_stop_a_run(tmp_path):
    rr.oscillator_run(tmp_path / "a", equilibrate=20, switch=30, cycles=1)
    script = "{ $RUN a 2>&1; echo $? > status; } | head -n 0; exec 2>&1"
    shell = in_shell(script, tmp_path / "log")
    assert shell.wait(rr.LIMIT) == 0
    assert wait_until((tmp_path / "status").exists)
    assert (tmp_path / "status").read_text().strip() in ("0", "1")  # 1: the table found no reader
    assert (tmp_path / "a" / "result.json").exists()
    assert (tmp_path / "log").read_text() == ""
    rr.oscillator_run(tmp_path / "b", equilibrate=20, switch=30, cycles=1)
    closed = in_shell("$RUN b >&- 2>&- <&-; echo $? > status", tmp_path / "log")
    assert closed.wait(rr.LIMIT) == 0
    assert (tmp_path / "status").read_text() == "0\n"
    assert (tmp_path / "b" / "result.json").exists()
    assert (tmp_path / "log").read_text() == ""


UP = """
import sys
import alchemdriver.__main__ as command
sys.argv = ["alchemdriver", *sys.argv[1:]]
opened = command.open_streams


def open_streams():  # what comes right after SIGINT has its first say
    print("up", flush=True)
    opened()


command.open_streams = open_streams
command.start()
"""


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.3, 0.6])
def test_ctrl_c_while_modules_load_says_nothing(wait, tmp_path):
    """From our first line on: before it, it is Python itself that starts."""
    process = subprocess.Popen(
        [sys.executable, "-c", UP, "gather", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=rr.ENV,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout.readline() == "up\n"
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=rr.LIMIT)
    assert "Traceback" not in text, text
    assert process.returncode in (-signal.SIGINT, 130, 2)


def test_a_busy_folder_advises_what_helps(folder):
    first = rr.start("run", folder, log=folder.parent / "run.log")
    rr.wait_for_step(folder / "run.out", 20, first)
    (folder / "RESTART").touch()  # of an earlier interruption
    second = rr.command("run", folder)
    assert second.returncode == 2
    server = faults.children(first, "server")[0]
    assert f"wait for it, or stop it with: kill {server}" in second.stderr
    assert "continue with" not in second.stderr
    os.kill(server, signal.SIGTERM)  # as advised
    first.wait(rr.LIMIT)
    assert checkpoints.latest(read_input(folder)).step >= 20


def test_what_is_waited_for_is_said(folder):
    port = faults.free_port()
    path = folder / "input.xml"
    text = path.read_text().replace('mode="unix"', 'mode="inet"')
    there = f"<address>localhost</address><port>{port}</port>"
    path.write_text(text.replace("<address>alchemdriver</address>", there))
    log = folder.parent / "run.log"
    supervisor = rr.start("run", "--clients", 0, folder, log=log)
    assert wait_until(lambda: f"waiting for a client on localhost:{port}" in log.read_text())
    typed = log.read_text().split(f"localhost:{port}: ")[1].split("\n")[0]
    client = rr.start(*typed.split()[1:], log=folder.parent / "client.log")
    rr.wait_for_step(folder / "run.out", 5, supervisor)
    assert f"connected to i-PI at localhost:{port}" in (folder.parent / "client.log").read_text()
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(rr.LIMIT) == 130
    assert client.wait(rr.LIMIT) == 0
    assert "continue with: alchemdriver run --clients 0" in log.read_text()


def test_the_time_left_counts_steps_of_this_session_only(monkeypatch):
    """A resumed run shows its old step until models are loaded: 30 s that say nothing."""
    from rich.console import Console

    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    display = Display(Console(quiet=True))
    rates = []
    for now, step in ((0.0, 500), (30.0, 500), (31.0, 510), (32.0, 520), (41.0, 610)):
        progress = Progress(step, 1000, 0.5, "forward", None)
        rates.append(display._rate("a", progress.step, now))
    assert rates == [0.0, 0.0, 0.0, pytest.approx(10.0), pytest.approx(10.0)]
