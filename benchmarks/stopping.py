"""How often stated errors cover where a calculation stops by its own error: stopping.json.

    PYTHONPATH=tests python benchmarks/stopping.py [--repetitions 2000] [--only TEXT]

Einstein crystal → exact crystal of 16 atoms, works by its exact propagator
(helpers.exact_switches), through the decisions of ``run --error``.  cost: evaluations at the stop
over those of a clairvoyant, who knows the true scatter.  Every case has a seed of its own.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from helpers.exact_switches import ExactSwitches, example
from helpers.until_error import Works, coverage

from alchemdriver.analysis.estimators.stopping import Wanted

FILE = Path(__file__).with_name("stopping.json")
ROOM = 1.6  # times as many cycles are sampled at first as a clairvoyant takes


def sampled(
    rng: np.random.Generator, what: ExactSwitches, repetitions: int, replicas: int, start: int,
    cycles: int,
) -> Works:  # fmt: skip
    forward, backward = (
        w.reshape(repetitions, replicas, cycles)
        for w in what.works(rng, repetitions * replicas, cycles)
    )
    return Works(
        forward, backward, what.temperature, start, what.schedule.period,
        lambda chains, cycles: what.works(rng, chains, cycles),
    )  # fmt: skip


def run(repetitions: int, only: str) -> None:
    table: dict[str, Any] = {"repetitions": repetitions, "cases": {}}
    if FILE.exists():  # cases can be run one by one
        table["cases"] = json.loads(FILE.read_text(encoding="utf-8"))["cases"]
    one = example()
    sigma = 0.0307  # eV, of a pair; only to say how many pairs are asked for
    for replicas, start in ((8, 2), (1, 10), (4, 4), (16, 1)):
        for pairs in (20, 60):
            name = f"{replicas} × {start}, {pairs} pairs"
            if only and only not in name:
                continue
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            began = time.process_time()
            room = int(ROOM * pairs / replicas) + 12
            works = {"a": sampled(rng, one, repetitions, replicas, start, room)}
            wanted = Wanted("F", {"a": 1.0}, sigma / pairs**0.5)
            found = coverage(works, wanted, one.delta_f)
            show(table, name, asdict(found), began)
    other = ExactSwitches(one.schedule, 1, timestep=8.0, softness=0.3)
    for pairs in (60,):
        name = f"difference of two stages, 8 × 2 each, {pairs} pairs"
        if only and only not in name:
            continue
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        began = time.process_time()
        room = int(ROOM * pairs / 8) + 12
        works = {
            "a": sampled(rng, one, repetitions, 8, 2, room),
            "b": sampled(rng, other, repetitions, 8, 2, room),
        }
        wanted = Wanted("ΔF", {"a": 1.0, "b": -1.0}, 2.0 * sigma / pairs**0.5)
        found = coverage(works, wanted, one.delta_f - other.delta_f)
        show(table, name, asdict(found), began)


def show(table: dict[str, Any], name: str, row: dict[str, float], began: float) -> None:
    table["cases"][name] = row
    print(
        f"{name}: {100 * row['one_sigma']:.1f}/{100 * row['ninety_five']:.1f}, cost "
        f"{row['cost']:.2f}, {row['looks']:.1f} looks, stated {row['error']:.2f} of what was asked "
        f"for  [{time.process_time() - began:.0f} s]",
        flush=True,
    )
    FILE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--only", default="", help="cases with this in their name")
    given = parser.parse_args()
    run(given.repetitions, given.only)
