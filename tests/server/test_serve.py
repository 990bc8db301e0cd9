"""The λ clock through real i-PI, real sockets and real restarts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.server.replies import check_reply

OUTPUTS = ("run.out", "run.dHdlambda_0", "run.lambda_0")


def outputs(folder):
    """All numbers of a run by step, as text: equality here is equality bit for bit."""
    return (
        rr.rows(folder / "run.out"),
        rr.frames(folder / "run.dHdlambda_0"),
        rr.frames(folder / "run.lambda_0"),
    )


def final_state(folder):
    """Positions, momenta, masses and cell of the last RESTART."""
    text = (folder / "RESTART").read_text()
    return [
        re.search(rf"<{tag} [^>]*>(.*?)</{tag}>", text, re.S)[1].split()
        for tag in ("q", "p", "m", "cell")
    ]


def run_to_end(folder):
    done = rr.command("run", folder)
    assert done.returncode == 0, done.stderr + (folder / "server.log").read_text()[-2000:]


def test_every_request_carries_the_scheduled_lambda(tmp_path):
    path = rr.oscillator_run(tmp_path / "a", equilibrate=5, switch=10, cycles=2)
    run_to_end(tmp_path / "a")
    run = read_input(path)
    seen = rr.frames(tmp_path / "a" / "run.lambda_0")
    assert sorted(seen) == list(range(61))
    assert all(float(value) == run.schedule.at(step) for step, value in seen.items())
    assert {float(seen[step]) for step in (15, 20)} == {1.0}


def test_rows_of_gradient_and_energy_belong_to_the_same_point(tmp_path):
    # one oscillator potential: U = ½Σ k(λ) d², dU/dλ = ½Σ (k1 − k0) d², so U/dU is known from λ
    rr.oscillator_run(tmp_path / "a", equilibrate=3, switch=12, cycles=1)
    run_to_end(tmp_path / "a")
    energy, slope, lam = outputs(tmp_path / "a")
    for step in range(4, 30):
        u = float(energy[step].split()[4])
        g = float(slope[step]) / 0.036749326
        k = 2.0 + 4.0 * float(lam[step])
        assert u == pytest.approx(g * k / 4.0, rel=1e-9)


@pytest.mark.parametrize(
    "protocol", ["switch-nvt", "switch-npt", "switch-npt-flexible", "switch-pimd-npt"]
)
@pytest.mark.parametrize("how", ["sigterm", "kill"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, protocol, how):
    def frequent(text):
        return text.replace(
            'stride="200" filename="checkpoint"', 'stride="7" filename="checkpoint"'
        )

    lengths = {"equilibrate": 20, "switch": 150, "cycles": 1}
    rr.oscillator_run(tmp_path / "whole", protocol, edit=frequent, **lengths)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    run_to_end(tmp_path / "whole")

    stops = (40, 120, 260) if how == "kill" else (90,)
    for stop in stops:
        supervisor = rr.start("run", tmp_path / "broken", log=tmp_path / "run.log")
        rr.wait_for_step(tmp_path / "broken" / "run.out", stop, supervisor)
        assert supervisor.poll() is None, (tmp_path / "run.log").read_text()
        if how == "sigterm":
            supervisor.send_signal(signal.SIGTERM)
            supervisor.wait(rr.LIMIT)
            assert "continue with: alchemdriver run" in (tmp_path / "run.log").read_text()
        else:
            kill_children(supervisor)
    assert max(rr.rows(tmp_path / "broken" / "run.out")) < 340
    run_to_end(tmp_path / "broken")
    assert outputs(tmp_path / "broken") == outputs(tmp_path / "whole")
    assert final_state(tmp_path / "broken") == final_state(tmp_path / "whole")


def kill_children(supervisor):
    """SIGKILL for the server and its clients, then for their supervisor."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True)
    pairs = [line.split() for line in listing.stdout.splitlines()[1:]]
    victims = [int(pid) for pid, parent in pairs if int(parent) == supervisor.pid]
    supervisor.send_signal(signal.SIGSTOP)  # it must not start new ones meanwhile
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    supervisor.kill()
    supervisor.wait(rr.LIMIT)


def test_fixed_lambda_under_stock_ipi_is_the_same_trajectory(tmp_path):
    rr.oscillator_run(tmp_path / "ours", "nvt-fixed", steps=60, lambda_=0.0)
    shutil.copytree(tmp_path / "ours", tmp_path / "stock")
    run_to_end(tmp_path / "ours")
    prefix = f"/tmp/alchemdriver-test-{os.getpid()}-"
    with open(tmp_path / "stock" / "i-pi.log", "w") as log:
        ipi = subprocess.Popen(
            [sys.executable, rr.stock_ipi(), "-S", prefix, "input.xml"],
            cwd=tmp_path / "stock",
            stdout=log,
            stderr=log,
            env=rr.ENV,
        )
        client = rr.command("client", tmp_path / "stock" / "input.xml", "--socket-prefix", prefix)
        assert ipi.wait(rr.LIMIT) == 0
    assert client.returncode == 0, client.stderr
    assert outputs(tmp_path / "ours") == outputs(tmp_path / "stock")
    ours, stock = ((tmp_path / d / "run.pos_0.xyz").read_text() for d in ("ours", "stock"))
    assert ours == stock


def test_a_schedule_under_stock_ipi_is_refused_by_the_client(tmp_path):
    rr.oscillator_run(tmp_path / "a", equilibrate=3, switch=12, cycles=1)
    prefix = f"/tmp/alchemdriver-refuse-{os.getpid()}-"
    with open(tmp_path / "i-pi.log", "w") as log:
        ipi = subprocess.Popen(
            [sys.executable, rr.stock_ipi(), "-S", prefix, "input.xml"],
            cwd=tmp_path / "a",
            stdout=log,
            stderr=log,
            env=rr.ENV,
        )
        try:
            client = rr.command("client", tmp_path / "a" / "input.xml", "--socket-prefix", prefix)
        finally:
            ipi.kill()
            ipi.wait()
    assert client.returncode == 2
    *said, error = client.stderr.splitlines()  # what it does until it is refused, then why
    assert error.startswith("error: ")
    assert "alchemdriver server" in error
    assert not any("error" in line or "Traceback" in line for line in said)


def test_two_clients_change_no_number(tmp_path):
    """P = 4; both clients must have served at least a tenth of the requests."""
    rr.oscillator_run(tmp_path / "one", "pimd-fixed", steps=150, lambda_=0.5)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert rr.command("run", tmp_path / "one").returncode == 0
    assert rr.command("run", "--clients", 2, tmp_path / "two").returncode == 0
    for bead in range(4):
        name = f"run.dHdlambda_{bead}"
        assert rr.frames(tmp_path / "one" / name) == rr.frames(tmp_path / "two" / name)
    assert rr.rows(tmp_path / "one" / "run.out") == rr.rows(tmp_path / "two" / "run.out")
    served = [
        int(re.search(r"served (\d+)", (tmp_path / "two" / f"client-{i}.log").read_text())[1])
        for i in (1, 2)
    ]
    assert sum(served) == 4 * 151
    assert min(served) >= 0.1 * sum(served)


def test_bad_replies_are_named():
    good = [1.0, np.zeros(6), np.zeros((3, 3)), {"lambda": 0.5, "dHdlambda": 0.1}]
    assert check_reply(good, 0.5, 2, True) is None

    def spoilt(**changes):
        reply = list(good)
        for index, value in changes.items():
            reply["efvx".index(index)] = value
        return check_reply(reply, 0.5, 2, True)

    assert "not finite" in spoilt(e=np.nan)
    assert "not finite" in spoilt(f=np.full(6, np.inf))
    assert "not finite" in spoilt(v=np.full((3, 3), np.nan))
    assert "expected 2" in spoilt(f=np.zeros(9))
    assert "dHdlambda" in spoilt(x={"lambda": 0.5})
    assert "dHdlambda" in spoilt(x={"lambda": 0.5, "dHdlambda": float("nan")})
    assert "asked for 0.5" in spoilt(x={"lambda": 0.5000000001, "dHdlambda": 0.1})
