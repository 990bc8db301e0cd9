"""The cases of ``fuzz.py``, steered towards code that no case has reached: coverage-guided.

    pip install atheris                          # optional: not a dependency, Linux only
    python -m campaigns.fuzz_guided [--cases 100000] [--corpus FOLDER]

atheris instruments our modules and mutates the bytes from which hypothesis builds a case, so valid
streams and inputs remain the starting point.  What ``fuzz.py`` counts as a failure is one here,
and so are a case of more than 20 seconds (of a machine that may be busy) and more than 1 GB.
--corpus keeps what reached new code.
"""

from __future__ import annotations

import argparse
import sys

import atheris

with atheris.instrument_imports(include=["alchemdriver"]):
    from campaigns import fuzz
from hypothesis import given

FEEDS = [given(cases)(check).hypothesis.fuzz_one_input for check, cases, _ in fuzz.TARGETS.values()]


def one(data: bytes) -> None:
    """The first byte picks the target, the others are its choices."""
    if data:
        FEEDS[data[0] % len(FEEDS)](data[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--corpus")
    args = parser.parse_args()
    options = [f"-runs={args.cases}", "-timeout=20", "-rss_limit_mb=1024"]
    options += [
        "-max_len=4096",
        "-len_control=0",
        "-print_final_stats=1",
        *filter(None, [args.corpus]),
    ]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
