"""A real Slurm on this machine alone: two nodes of one core, no authentication, loopback only."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CONF = """ClusterName=local
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{nodes}] CPUs=1 \
RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    lost = [name for name in ("slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if lost:
        return f"no {lost[0]} on this machine: apt-get install slurm-wlm"
    if os.geteuid() != 0:
        return "slurmd wants to be root"
    return None


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find it; ends what it has started.

    Where its own daemons do not start, or the nodes do not come up, the test is skipped.
    """
    (folder / "state").mkdir(parents=True)
    port, *nodes = _free_ports(3)
    text = CONF.format(
        host=socket.gethostname().split(".")[0],
        user=getpass.getuser(),
        folder=folder,
        port=port,
        nodes=",".join(map(str, nodes)),
    )
    (folder / "slurm.conf").write_text(text)
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    env["PATH"] += ":/usr/sbin:/sbin"
    try:
        for daemon in (["slurmctld"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]):
            started = subprocess.run(daemon, env=env, capture_output=True, text=True, check=False)
            if started.returncode:
                pytest.skip(f"{daemon[0]} does not start here: {started.stderr.strip()[-200:]}")
        idle = ["sinfo", "-h", "-t", "idle", "-o", "%D"]
        for _ in range(240):
            found = subprocess.run(idle, env=env, capture_output=True, text=True, check=False)
            if found.stdout.strip() == "2":
                break
            time.sleep(0.5)
        else:
            pytest.skip(f"Slurm has no two idle nodes here: {found.stdout}{found.stderr}")
        yield env
    finally:
        subprocess.run(["scancel", "-u", getpass.getuser()], env=env, check=False)
        for file in folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()
