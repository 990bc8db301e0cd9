"""Shared memory of dead servers goes, that of living ones and of strangers stays."""

import os
import subprocess
import sys
import time

from alchemdriver.server import leftovers


def test_segments_of_dead_servers_alone_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        "dead": f"ipi_shm_{dead.pid}_7_0123abcd_force",
        "young": f"ipi_shm_{dead.pid}_8_0123abcd_force",
        "alive": f"ipi_shm_{os.getpid()}_7_0123abcd_force",
        "stock": f"ipi_shm_{dead.pid}_7_force",  # i-PI's own, of a run that is not ours
    }
    for name in names.values():
        (tmp_path / name).touch()
    leftovers._YOUNG, young = -1.0, leftovers._YOUNG
    try:
        os.utime(tmp_path / names["young"], (time.time() + 1e4,) * 2)
        assert leftovers.remove_dead_segments(tmp_path) == [names["dead"]]
    finally:
        leftovers._YOUNG = young
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(
        names[k] for k in ("young", "alive", "stock")
    )
