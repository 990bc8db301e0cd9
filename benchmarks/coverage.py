"""How often stated errors cover the truth: writes benchmarks/coverage.json and prints it.

    PYTHONPATH=tests python benchmarks/coverage.py [--only GROUP …] [--repetitions 4000]

Every case has a seed of its own, so that groups can be run one by one into the same file.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from helpers.coverage import Found, cases

FILE = Path(__file__).with_name("coverage.json")
LOOKS = 200  # repetitions whose warnings are looked at


def run(only: list[str], repetitions: int) -> None:
    for group, name, case in cases():
        if only and group not in only:
            continue
        began = time.process_time()
        rng = np.random.default_rng(zlib.crc32(f"{group}: {name}".encode()))
        found = case(rng, repetitions, LOOKS)
        row = {k: vars(v) if isinstance(v, Found) else v for k, v in found.items()}
        table: dict[str, Any] = {"repetitions": repetitions, "looks": LOOKS, "cases": {}}
        if FILE.exists():  # of other groups, which may run beside this one
            table["cases"] = json.loads(FILE.read_text(encoding="utf-8"))["cases"]
        table["cases"].setdefault(group, {})[name] = row
        print(f"{group}: {name}: {text(row)}  [{time.process_time() - began:.0f} s]", flush=True)
        FILE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def text(row: dict[str, Any]) -> str:
    """One row of the table."""
    parts = []
    for key, value in row.items():
        if isinstance(value, dict):
            told = "" if value["told"] == 1.0 else f" (told {100 * value['told']:.0f})"
            parts.append(
                f"{key} {100 * value['one_sigma']:.1f}/{100 * value['ninety_five']:.1f}{told}"
            )
        elif isinstance(value, float):
            parts.append(f"{key} {100 * value:.0f}")
    return ", ".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--repetitions", type=int, default=4000)
    given = parser.parse_args()
    run(given.only, given.repetitions)
