"""Memory that one evaluation needs beyond the loaded model, against a stock step."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ..errors import RunError
from .cases import System, perovskite
from .timing import Row, calculator_step, open_backend, stock_calculator

__all__ = ["rows"]

REPEAT = 3  # CsPbI3, 135 atoms


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """CsPbI3 with 135 atoms: ours with every Pb split, stock without.

    On a CPU each variant has a process of its own, and the peak of its resident set counts from
    that before the evaluation; on CUDA it is torch's own count.
    """
    for model in models:
        for dtype in dtypes:
            ours, stock = (
                _in_own_process(model, dtype, device, variant) for variant in ("ours", "stock")
            )
            yield {
                "model": model,
                "dtype": dtype,
                "MB": round(ours, 1),
                "stock, MB": round(stock, 1),
                "over_stock": round(ours / stock, 3),
            }


def _in_own_process(model: str, dtype: str, device: str, variant: str) -> float:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, model, dtype, device, variant))
    process.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError:
        raise RunError(f"bench: the process that measures memory of {model} ended early") from None
    finally:
        process.join()


def _measure(sender: Connection, model: str, dtype: str, device: str, variant: str) -> None:
    """Send the peak (MB) of two evaluations, after one of a small cell has loaded everything."""
    torch.set_num_threads(1)
    backend = open_backend(model, device, dtype)

    def step(system: System) -> Callable[[], object]:
        if variant == "stock":
            stock = calculator_step(stock_calculator(backend), system.structure)
            return lambda: stock(system.structure.positions)
        s, potential = system.structure, backend.potential(system.sites)
        return lambda: potential.evaluate(s.positions, s.cell, s.pbc, system.weights)

    step(perovskite(1))()
    evaluate = step(perovskite(REPEAT))
    before = _start_counting(device)
    evaluate()
    evaluate()
    sender.send((_peak(device) - before) / 1e6)


def _start_counting(device: str) -> int:
    """Bytes in use now."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is not in use
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    except (OSError, AttributeError) as err:
        raise RunError(f"bench: peak memory is measured on Linux only: {err}") from None
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(peak)
