"""Parsl's interchange, which ends when the driver does, however that ends.

By itself it would go on, with idle workers in paid batch jobs, until these are over.
"""

from __future__ import annotations

import os
import runpy
import threading
import time

EVERY = 1.0  # s


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
