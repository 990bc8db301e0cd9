"""Kills, hangs, full disks, broken tunnels: the numbers are those of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import faults
from helpers import real_runs as rr

from alchemdriver.analysis import switching_work
from alchemdriver.contract.address import Address
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.secret import FILE
from alchemdriver.contract.text import parse_wall_time
from alchemdriver.errors import InputError
from alchemdriver.server import checkpoints

LENGTHS = {"equilibrate": 50, "switch": 150, "cycles": 1}
LAST = 400


def often(text: str) -> str:
    """A checkpoint every 25 steps."""
    return text.replace('stride="200" filename="checkpoint"', 'stride="25" filename="checkpoint"')


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(folder before the run, its numbers afterwards)."""
    folder = tmp_path_factory.mktemp("undisturbed") / "a"
    rr.oscillator_run(folder, edit=often, **LENGTHS)
    shutil.copytree(folder, folder.parent / "pristine")
    assert rr.command("run", folder).returncode == 0
    return folder.parent / "pristine", faults.numbers(folder)


@pytest.fixture
def folder(undisturbed, tmp_path):
    """A copy to disturb."""
    shutil.copytree(undisturbed[0], tmp_path / "a")
    return tmp_path / "a"


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "input.xml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def socket_prefix() -> str:
    return f"/tmp/alchemdriver-recovery-{os.getpid()}-{time.monotonic_ns()}-"


def finish(folder: Path, expected: list) -> None:
    done = rr.command("run", folder)
    assert done.returncode == 0, done.stderr + (folder / "server.log").read_text()[-2000:]
    assert faults.numbers(folder) == expected


# --- clients ------------------------------------------------------------------------------------


def test_fifty_kills_of_a_client_in_one_run(folder, undisturbed):
    prefix = socket_prefix()
    address = Address.unix(prefix + "alchemdriver", prefix="")
    server = rr.start(
        "server", folder / "input.xml", "--socket-prefix", prefix, log=folder / "server.log"
    )
    rng = np.random.default_rng(11)
    kills, step = 0, 0
    try:
        while kills < 50:
            # slow enough that most kills fall into an evaluation
            client = faults.quick_client(folder / "input.xml", address, slow=0.005)
            step += int(rng.integers(0, 7))
            rr.wait_for_step(folder / "run.out", step, server)
            time.sleep(rng.uniform(0.0, 0.02))
            assert client.exitcode is None
            client.kill()
            client.join(rr.LIMIT)
            kills += 1
        assert server.poll() is None
        steps = max(rr.rows(folder / "run.out"), default=-1)
        assert 0 < steps < LAST, "the kills were not during the run"
        client = faults.quick_client(folder / "input.xml", address)
        assert server.wait(rr.LIMIT) == 0, (folder / "server.log").read_text()[-2000:]
        client.join(rr.LIMIT)
    finally:
        server.kill()
        server.wait()
    assert faults.numbers(folder) == undisturbed[1]


def test_a_client_that_hangs_is_replaced(folder, undisturbed):
    edit(folder, "<timeout>600</timeout>", "<timeout>2</timeout>")
    edit(folder, "<latency>1e-4<", "<latency>5e-3<")  # slower, so that there is time to stop it
    supervisor = rr.start("run", folder, log=folder.parent / "run.log")
    for step in (40, 200):
        rr.wait_for_step(folder / "run.out", step, supervisor)
        faults.kill(faults.wait_for_child(supervisor, "client"), signal.SIGSTOP)
        time.sleep(0.5)  # it is one step further at most
    assert supervisor.wait(rr.LIMIT) == 0, (folder.parent / "run.log").read_text()
    assert (folder.parent / "run.log").read_text().count("hangs, killed") == 2
    assert faults.numbers(folder) == undisturbed[1]


def test_another_client_takes_over_from_one_that_hangs(folder, undisturbed):
    edit(folder, "<timeout>600</timeout>", "<timeout>2</timeout>")
    prefix = socket_prefix()
    address = Address.unix(prefix + "alchemdriver", prefix="")
    server = rr.start(
        "server", folder / "input.xml", "--socket-prefix", prefix, log=folder / "server.log"
    )
    first = faults.quick_client(folder / "input.xml", address, slow=0.005)
    try:
        rr.wait_for_step(folder / "run.out", 10, server)
        faults.kill(first.pid, signal.SIGSTOP)
        second = faults.quick_client(folder / "input.xml", address)
        assert server.wait(rr.LIMIT) == 0
        second.join(rr.LIMIT)
    finally:
        first.kill()
        server.kill()
        server.wait()
    # whether it held a request when it stopped is chance; that hangs are named is tested above
    assert faults.numbers(folder) == undisturbed[1]


def test_a_client_that_hangs_during_an_evaluation_is_named(folder, undisturbed):
    """By then i-PI has closed its socket; the supervisor needs the process id to replace it."""
    edit(folder, "<timeout>600</timeout>", "<timeout>2</timeout>")
    prefix = socket_prefix()
    address = Address.unix(prefix + "alchemdriver", prefix="")
    log = folder / "server.log"
    server = rr.start("server", folder / "input.xml", "--socket-prefix", prefix, log=log)
    first = faults.quick_client(folder / "input.xml", address, slow=float(rr.LIMIT))
    try:
        deadline = time.monotonic() + rr.LIMIT
        while f"client process {first.pid} hung: no answer within 2 s" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)
        second = faults.quick_client(folder / "input.xml", address)
        assert server.wait(rr.LIMIT) == 0
        second.join(rr.LIMIT)
    finally:
        first.kill()
        server.kill()
        server.wait()
    assert faults.numbers(folder) == undisturbed[1]


def test_a_client_with_another_lambda_is_dropped(folder, undisturbed):
    prefix = socket_prefix()
    address = Address.unix(prefix + "alchemdriver", prefix="")
    server = rr.start(
        "server", folder / "input.xml", "--socket-prefix", prefix, log=folder / "server.log"
    )
    try:
        wrong = faults.quick_client(folder / "input.xml", address, shift=1e-12)
        wrong.join(rr.LIMIT)
        good = faults.quick_client(folder / "input.xml", address)
        assert server.wait(rr.LIMIT) == 0
        good.join(rr.LIMIT)
    finally:
        server.kill()
        server.wait()
    assert "client dropped: answered for lambda" in (folder / "server.log").read_text()
    assert faults.numbers(folder) == undisturbed[1]


# --- servers ------------------------------------------------------------------------------------

# Dies while writing its n-th checkpoint: with half of it on disk, before the old one is renamed, or
# between the two renames.
DYING = """
import os, signal, sys
from pathlib import Path
from alchemdriver.server.serve import serve

path, prefix, restart, stage, n = sys.argv[1:]
written, renames = 0, 0  # checkpoints that are whole, renames of the one being written

def die():
    os.kill(os.getpid(), signal.SIGKILL)

stock = os.replace
def rename(a, b):
    global written, renames
    if str(b).endswith(".json"):  # no checkpoint
        return stock(a, b)
    renames += 1
    if written + 1 == int(n):
        if stage == "half":
            name = Path(b).name.removesuffix(".previous")
            new = max(Path().glob(f"*{name}*"), key=lambda file: file.stat().st_mtime_ns)
            os.truncate(new, new.stat().st_size // 2)
            die()
        if renames == {"written": 1, "between": 2}[stage]:
            die()
    stock(a, b)
    if not str(b).endswith(".previous"):
        written, renames = written + 1, 0

os.replace = rename
serve(path, restart=Path(restart) if restart else None, sockets_prefix=prefix)
"""


def test_kills_while_a_checkpoint_is_written(folder, undisturbed):
    """Within the n-th write of a fresh or resumed server (a fresh one's first is of step 0); what
    is complete, every 25 steps, is never lost."""
    for stage, n, survives in (
        ("half", 1, 0),
        ("half", 2, 0),
        ("half", 3, 25),
        ("written", 2, 50),
        ("between", 2, 75),
        ("half", 3, 125),
        ("between", 1, 125),
    ):
        prefix = socket_prefix()
        address = Address.unix(prefix + "alchemdriver", prefix="")
        before = checkpoints.latest(read_input(folder))
        command = [sys.executable, "-c", DYING, folder / "input.xml", prefix]
        command += [before.path if before else "", stage, str(n)]
        with open(folder / "server.log", "a") as log:
            server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=rr.ENV)
        client = faults.quick_client(folder / "input.xml", address)
        assert server.wait(rr.LIMIT) == -signal.SIGKILL, (folder / "server.log").read_text()
        client.kill()
        after = checkpoints.latest(read_input(folder))
        assert (after.step if after else 0) == survives
    # what a kill may leave at the end of files, beyond the checkpoint
    for name, torn in (("run.out", "  1.26e+02   3.0"), ("run.dHdlambda_0", "#EXTRAS(dHd")):
        with open(folder / name, "a") as f:
            f.write(torn)
    finish(folder, undisturbed[1])
    whole, broken = (switching_work(read_input(f)) for f in (undisturbed[0].parent / "a", folder))
    assert broken.forward == whole.forward
    assert broken.backward == whole.backward


def test_kills_of_the_server_at_random_moments(folder, undisturbed):
    """The first before any checkpoint; clients live on and meet the next server."""
    rng = np.random.default_rng(3)
    prefix = socket_prefix()
    address = Address.unix(prefix + "alchemdriver", prefix="")
    client = faults.quick_client(folder / "input.xml", address, slow=0.002)
    try:
        for k in range(6):
            checkpoint = checkpoints.latest(read_input(folder))
            args = ["server", folder / "input.xml", "--socket-prefix", prefix]
            if checkpoint is not None:
                args += ["--restart", checkpoint.path]
            begin = checkpoint.step if checkpoint else 0
            server = rr.start(*args, log=folder / "server.log")
            stop = begin + (5 if k == 0 else int(rng.integers(1, 60)))
            rr.wait_for_step(folder / "run.out", stop, server)
            server.kill()
            server.wait()
            Path(address.path).unlink(missing_ok=True)
    finally:
        client.kill()
    finish(folder, undisturbed[1])


def test_exit_file_interrupt_and_wall_time_stop_cleanly(folder, undisturbed):
    edit(folder, "<latency>1e-4<", "<latency>2e-2<")  # slow: the run must outlive 4 s
    log = folder.parent / "run.log"
    supervisor = rr.start("run", folder, log=log)
    rr.wait_for_step(folder / "run.out", 30, supervisor)
    (folder / "EXIT").touch()
    assert supervisor.wait(rr.LIMIT) == 2
    assert "stopped by an EXIT file" in log.read_text()
    first = checkpoints.latest(read_input(folder)).step
    assert first >= 30

    supervisor = rr.start("run", folder, log=log)
    rr.wait_for_step(folder / "run.out", first + 20, supervisor)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(rr.LIMIT) == 130
    assert "continue with: alchemdriver run" in log.read_text()
    second = checkpoints.latest(read_input(folder)).step
    assert second >= first + 20

    done = rr.command("run", folder, "--wall-time", "0:00:06")
    assert done.returncode in (75, 0), done.stderr
    if done.returncode == 75:  # else this machine was quick
        assert "wall time over" in done.stderr
        assert "continue with: alchemdriver run" in done.stderr
        assert second <= checkpoints.latest(read_input(folder)).step < LAST
    finish(folder, undisturbed[1])


def test_wall_time_is_read_as_batch_queues_write_it():
    for text, seconds in (("23:50:00", 85800), ("2-12:00:00", 216000), ("5:00", 300)):
        assert parse_wall_time(text) == seconds
    for text in ("", "soon", "0:00", "1:2:3:4", "-1:00", "90"):
        with pytest.raises(InputError, match="23:50:00"):
            parse_wall_time(text)


# --- disks --------------------------------------------------------------------------------------


def alchemdriver(*args) -> str:
    return " ".join([sys.executable, "-m", "alchemdriver", *map(str, args)])


def shell(*command) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, capture_output=True, text=True, env=rr.ENV, timeout=rr.LIMIT, check=False
    )


def in_own_mounts(script: str) -> subprocess.CompletedProcess:
    """*script* in a user namespace, where mounting needs no privileges."""
    if shell("unshare", "-rm", "true").returncode != 0:
        pytest.skip("user namespaces are not allowed here")
    return shell("unshare", "-rm", "bash", "-c", script)


def test_files_that_cannot_grow(folder, undisturbed):
    done = shell("bash", "-c", f"ulimit -f 40; exec {alchemdriver('run', folder)}")
    assert done.returncode == 2
    assert "cannot be written: File too large" in done.stderr
    assert "run again to continue" in done.stderr
    finish(folder, undisturbed[1])


def test_a_full_disk(folder, undisturbed):
    """A tmpfs of 100 kB: the server ends with one line, what is there is whole, and continues."""
    disk, saved = folder.parent / "disk", folder.parent / "saved"
    disk.mkdir()
    done = in_own_mounts(
        f"mount -t tmpfs -o size=100k none {disk} && cp -r {folder} {disk} && "
        f"{alchemdriver('run', disk / 'a')}; status=$?; cp -r {disk}/a {saved}; exit $status"
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written: No space left on device" in done.stderr
    assert checkpoints.latest(read_input(saved)).step > 0
    finish(saved, undisturbed[1])


def test_a_read_only_folder(folder, undisturbed):
    done = in_own_mounts(
        f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && "
        f"exec {alchemdriver('run', folder)}"
    )
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr
    assert done.stderr.count("\n") == 1
    finish(folder, undisturbed[1])


# --- remote clients -----------------------------------------------------------------------------


def over_tcp(folder: Path, port: int) -> None:
    edit(folder, 'mode="unix"', 'mode="inet"')
    there = f"<address>localhost</address><port>{port}</port>"
    edit(folder, "<address>alchemdriver</address>", there)


def test_a_run_over_tcp_has_a_secret_and_the_same_numbers(folder, undisturbed):
    """Nothing is typed; client and server find it in the folder, and print it nowhere."""
    over_tcp(folder, faults.free_port())
    done = rr.command("run", folder)
    assert done.returncode == 0, done.stderr
    assert faults.numbers(folder) == undisturbed[1]
    secret = (folder / FILE).read_text().strip()
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    logs = [path.read_text() for path in folder.glob("*.log")]
    assert not any(secret in text for text in [done.stdout, done.stderr, *logs])


def test_clients_through_a_tunnel_that_breaks(folder, undisturbed):
    """A forwarder on loopback stands in for ssh -L; two clients of different speed share it."""
    port = faults.free_port()
    over_tcp(folder, port)
    supervisor = rr.start("run", "--clients", 0, folder, log=folder.parent / "run.log")
    tunnel = faults.Tunnel(("127.0.0.1", port))
    far = Address.tcp("127.0.0.1", tunnel.port)
    clients = [faults.quick_client(folder / "input.xml", far, slow=s) for s in (0.002, 0.01)]
    try:
        for step in (60, 200):
            rr.wait_for_step(folder / "run.out", step, supervisor)
            tunnel.cut()
        assert supervisor.wait(rr.LIMIT) == 0, (folder.parent / "run.log").read_text()
    finally:
        for client in clients:
            client.kill()
        supervisor.kill()
        tunnel.close()
    assert faults.numbers(folder) == undisturbed[1]


# Two hosts: this shell's and another network namespace, a cable between them, and a tunnel from the
# far loopback to the near one.  $1 folder, $2 port, $3 python
TWO_HOSTS = """
set -e
trap 'kill $(jobs -p)' EXIT
unshare -n sleep 600 & far=$!
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
there="nsenter -t $far -n"
ip link add near type veth peer name far
ip link set far netns $far
ip addr add 10.77.0.1/24 dev near && ip link set near up && ip link set lo up
$there ip addr add 10.77.0.2/24 dev far && $there ip link set far up && $there ip link set lo up
tunnel='import sys, time; from helpers import faults; a, b, c, d = sys.argv[1:]
faults.Tunnel((a, int(b)), (c, int(d))); time.sleep(600)'
$3 -c "$tunnel" localhost $2 10.77.0.1 7000 &
$there $3 -c "$tunnel" 10.77.0.1 7000 127.0.0.1 $2 &
$3 -m alchemdriver run --clients 0 $1 & run=$!
$there $3 -m alchemdriver --verbose client $1/input.xml --address localhost --port $2 2>$1/far.log &
until [ "$(wc -l <$1/run.out)" -gt 100 ] || ! kill -0 $run; do sleep 0.05; done 2>/dev/null
ip link set near down  # longer than the server waits for an answer
sleep 2
ip link set near up
wait $run
"""


def test_a_client_on_another_host_whose_cable_is_pulled(folder, undisturbed):
    edit(folder, "<timeout>600</timeout>", "<timeout>1</timeout>")
    edit(folder, "<latency>1e-4<", "<latency>1e-3<")  # slower: the cable must be pulled in time
    port = faults.free_port()
    over_tcp(folder, port)
    if shell("unshare", "-rmn", "ip", "link", "add", "near", "type", "veth").returncode != 0:
        pytest.skip("network namespaces are not allowed here, or there is no iproute2")
    done = subprocess.run(
        ["unshare", "-rmn", "bash", "-c", TWO_HOSTS, "-", folder, str(port), sys.executable],
        capture_output=True,
        text=True,
        env=rr.ENV,
        cwd=Path(__file__).parent.parent,  # where helpers are
        timeout=rr.LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "lost i-PI" in (folder / "far.log").read_text()
    assert faults.numbers(folder) == undisturbed[1]


def test_only_loopback_is_taken_for_granted(undisturbed, caplog):
    from alchemdriver.server.serve import is_loopback, warn_if_open

    run = read_input(undisturbed[0])
    warn_if_open(run)
    for address in ("localhost", "0.0.0.0"):
        socket = replace(run.socket, mode="inet", address=address, port=31415)
        warn_if_open(replace(run, socket=socket))
    assert len(caplog.messages) == 1
    assert "31415 of 0.0.0.0 is open to other machines" in caplog.text
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.4", "gpu-node", "")))
