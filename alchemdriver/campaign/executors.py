"""Where a campaign computes: this machine, Slurm, or any Parsl ``Config`` in a Python file.

Parsl is imported when a campaign is run, not before.
"""

from __future__ import annotations

import logging
import math
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.text import parse_wall_time
from ..errors import InputError, RunError, did_you_mean
from ..execute.supervisor import cores
from .plan import Plan
from .slices import BLOCK_ENDS, LEAST, margin

if TYPE_CHECKING:
    from parsl.config import Config

__all__ = ["NAMES", "Pool", "start"]

NAMES = ("local", "slurm")
LOGS = "parsl"  # folder of Parsl's own files, in the campaign's
_BEAT, _SILENCE = 5, 30  # s: workers say that they live, and when they are given up


@dataclass
class Pool:
    """Workers that are there, or will be."""

    slots: int  # runs at a time
    device: str  # of their clients
    _kernel: Any  # parsl's DataFlowKernel

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        submitted: Future[Any] = self._kernel.submit(
            function, app_args=arguments, executors="all", cache=False, ignore_for_cache=[],
            app_kwargs={},
        )  # fmt: skip
        return submitted

    def trouble(self) -> str | None:
        """Why no worker can be started any more; None if all is well."""
        for executor in self._kernel.executors.values():
            if getattr(executor, "bad_state_is_set", False):
                return " ".join(str(executor.executor_exception).split())
        return None

    def close(self) -> None:
        """End the workers; slices that run are stopped and can go on later."""
        self._kernel.cleanup()


def start(choice: str, plan: Plan, root: Path) -> Pool:
    """The workers of ``--executor`` *choice*.  Raises InputError, or RunError without Parsl."""
    try:
        import parsl
    except ImportError:
        raise RunError(
            "campaigns run on the optional package parsl: pip install 'alchemdriver[cluster]'"
        ) from None
    # the scripts of Parsl are looked for by name, here and on the nodes
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if choice == "local":
        config = _local(plan)
    elif choice == "slurm":
        config = _slurm(plan)
    elif choice.endswith(".py"):
        config = _from_file(Path(choice))
    else:
        raise InputError(
            f"--executor: expected local, slurm or the name of a Python file, got '{choice}'"
            f"{did_you_mean(choice, NAMES)}"
        )
    config.run_dir = str(root.resolve() / LOGS)
    config.retries = 0  # what is tried again, and when, is the driver's
    for executor in config.executors:
        _end_with_driver(executor)
        _end_in_time(executor)
    parsls = logging.getLogger("parsl")  # its own files have it, if the Config says so
    parsls.propagate = False
    parsls.addHandler(logging.NullHandler())
    gpus = any(getattr(e, "available_accelerators", ()) for e in config.executors)
    device = ("cuda" if gpus else "cpu") if plan.run.device == "auto" else plan.run.device
    return Pool(sum(map(_slots, config.executors)), device, parsl.load(config))


def _end_with_driver(executor: Any) -> None:
    """Let no interchange, and with it no idle worker, outlive this process."""
    if hasattr(executor, "interchange_launch_cmd"):
        executor.interchange_launch_cmd = [
            sys.executable,
            "-m",
            "alchemdriver.campaign.interchange",
        ]


def _end_in_time(executor: Any) -> None:
    """Let workers of batch jobs know when these end, and take nothing up shortly before."""
    provider = executor.provider if hasattr(executor, "provider") else None
    walltime = getattr(provider, "walltime", None)
    if provider is None or not walltime:
        return
    seconds = int(parse_wall_time(walltime))
    room = seconds - margin(seconds)
    line = f"export {BLOCK_ENDS}=$(( $(date +%s) + {int(room)} ))"
    provider.worker_init = f"{line}\n{provider.worker_init}"
    if getattr(executor, "drain_period", 0) is None:
        executor.drain_period = max(1, int(room - LEAST))


def _slots(executor: Any) -> int:
    workers = int(getattr(executor, "workers_per_node", 1) or 1)
    provider = getattr(executor, "provider", None)
    blocks = int(getattr(provider, "max_blocks", 1) or 1)
    return workers * blocks * int(getattr(provider, "nodes_per_block", 1) or 1)


def _workers(label: str, plan: Plan, gpus: list[str], workers: int, **more: Any) -> Any:
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

    pool = "-m parsl.executors.high_throughput.process_worker_pool"
    shared = [gpu for gpu in gpus for _ in range(plan.run.runs_per_gpu)]
    return HighThroughputExecutor(
        label=label,
        launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", f"{sys.executable} {pool}"),
        max_workers_per_node=len(shared) or workers,
        cores_per_worker=1e-3,  # the number of workers is that above
        available_accelerators=shared,
        heartbeat_period=_BEAT,
        heartbeat_threshold=_SILENCE,
        **more,
    )


def _config(executor: Any) -> Config:
    from parsl.config import Config

    return Config(executors=[executor], strategy_period=2, initialize_logging=False)


def _local(plan: Plan) -> Config:
    from parsl.providers import LocalProvider

    gpus = _gpus_here()
    workers = max(1, cores() // (plan.run.threads * plan.run.clients))
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    return _config(_workers("local", plan, gpus, workers, provider=provider, address="127.0.0.1"))


def _gpus_here() -> list[str]:
    """The GPUs of NVIDIA that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1", "NoDevFiles")]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (subprocess.SubprocessError, OSError):
        return []
    return found.stdout.split()


def _slurm(plan: Plan) -> Config:
    from parsl.launchers import SimpleLauncher, SrunLauncher
    from parsl.providers import SlurmProvider

    s = plan.slurm
    if s is None:
        raise InputError(
            "--executor slurm: expected a table [slurm] in the campaign's plan.toml, with walltime "
            "and whatever the cluster wants"
        )
    if shutil.which("sbatch") is None:
        raise InputError("--executor slurm: there is no sbatch here: run it on a login node")
    if not s.gpus_per_node and s.cores_per_node is None:
        raise InputError("[slurm]: expected gpus_per_node or cores_per_node: how many runs fit")
    room = (s.cores_per_node or 0) // (plan.run.threads * plan.run.clients)
    if not s.gpus_per_node and room < 1:
        raise InputError(
            f"[slurm]: cores_per_node is {s.cores_per_node}, less than clients × threads of [run]"
        )
    minutes = math.ceil(parse_wall_time(s.walltime) / 60)
    provider = SlurmProvider(
        account=s.account,
        partition=s.partition,
        qos=s.qos,
        constraint=s.constraint,
        nodes_per_block=s.nodes,
        cores_per_node=s.cores_per_node,
        gpus_per_node=s.gpus_per_node or None,
        init_blocks=0,
        min_blocks=0,
        max_blocks=s.jobs,
        walltime=f"{minutes // 60:02d}:{minutes % 60:02d}:00",
        scheduler_options="\n".join(f"#SBATCH {option}" for option in s.options),
        worker_init="\n".join(s.worker_init),
        exclusive=s.exclusive,
        cmd_timeout=60,
        launcher=SrunLauncher() if s.nodes > 1 else SimpleLauncher(),
    )
    gpus = [str(n) for n in range(s.gpus_per_node)]
    return _config(_workers("slurm", plan, gpus, max(1, room), provider=provider))


def _from_file(path: Path) -> Config:
    """The ``Config`` that a user's file holds, under any name."""
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor

    if not path.is_file():
        raise InputError(f"--executor: {path} does not exist")
    try:
        content = runpy.run_path(str(path))
    except Exception as err:  # whatever a user's file may raise
        raise InputError(f"--executor: {path}: {type(err).__name__}: {err}") from None
    found = [value for value in content.values() if isinstance(value, Config)]
    if len(found) != 1:
        raise InputError(f"--executor: {path}: expected one parsl Config, got {len(found)}")
    if any(isinstance(e, ThreadPoolExecutor) for e in found[0].executors):
        raise InputError(
            f"--executor: {path}: expected workers that are processes, such as a "
            "HighThroughputExecutor, got threads"
        )
    return found[0]
