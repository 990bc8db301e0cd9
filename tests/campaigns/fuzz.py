"""Broken bytes and broken XML by the hundred thousand: refused with one of our errors, never worse.

    python -m campaigns.fuzz [--cases 100000]

Hypothesis mutates valid streams of i-PI (single, batched, shared memory) and valid inputs.  A case
fails if it raises anything but WireError (streams) or InputError (inputs), takes longer than
two seconds, or if the decoder holds more than it was given.  ``test_fuzz.py`` runs a few hundred.
"""

from __future__ import annotations

import argparse
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alchemdriver.client import wire
from alchemdriver.contract.parameters import check_parameters, split_parameters
from alchemdriver.contract.run_input import interpret
from alchemdriver.contract.xmltree import parse_xml
from alchemdriver.errors import InputError, WireError
from alchemdriver.prepare.protocols import PROTOCOLS, find

N = 2  # atoms in the streams
SECONDS = 2.0  # a case may take
outcomes: Counter = Counter()  # how the cases of this process ended


# --- what is mutated ----------------------------------------------------------------------------


def _header(name: str) -> bytes:
    return name.ljust(12).encode()


def _init(batch: int) -> bytes:
    text = f" lambda : 0.25 , digest : sha256-0 , batch_size:{batch}".encode()
    return _header("INIT") + struct.pack("=ii", 0, len(text)) + text


def _posdata(batch: int) -> bytes:
    cells, numbers = np.eye(3).tobytes() * 2 * batch, np.zeros((batch, N, 3)).tobytes()
    count = struct.pack("=i", N)
    body = cells + count if batch == 1 else count + cells
    return _header("POSDATA") + body + numbers


def _shared() -> bytes:
    names = [f"ipi_shm_1_{k}".encode() for k in ("pos", "h", "ih", "pot", "force", "vir")]
    body = b"".join(struct.pack("=i", len(name)) + name for name in names)
    return _header("POSDATA") + struct.pack("=i", N) + body


def _exchange(batch: int, positions: bytes) -> bytes:
    parts = [_header("STATUS"), _init(batch), _header("STATUS"), positions, _header("GETFORCE")]
    return b"".join(parts) * 2 + _header("EXIT")


STREAMS = [
    (False, _exchange(1, _posdata(1))),
    (False, _exchange(3, _posdata(3))),
    (True, _exchange(2, _shared())),
]
INPUTS = [p.template.read_text() for p in PROTOCOLS if not p.in_stages]
PARAMETERS = (
    "{model: demo, alchemy: Pb->Sn, schedule: poly9, equilibrate: 500, switch: 1500, cycles: 1, "
    "masses: fixed, lambda: 0, dtype: float64, tether: 4.2, digest: sha256-0}"
)
# Numbers and words that are close to what belongs there are worth more than random ones.
_INTS = st.sampled_from([2**31 - 1, -1, -(2**31), 0, 1, N, 4096, 4097, 1 << 20, (1 << 20) + 1])
_WORDS = st.sampled_from(
    [
        "nan",
        "inf",
        "-1",
        "1e999",
        "&#0;",
        "<![CDATA[",
        "]]>",
        "<!--",
        "/>",
        "<x>",
        "True",
        "λ",
        "{",
        "}",
        ":",
        ",",
        "->",
        "void",
        "einstein->model",
        "[0-9]",
        "unix",
        "shm",
        "999999999999999999999999999999",
    ]
)


@st.composite
def streams(draw) -> tuple[bool, list[bytes]]:
    """A stream with a few changes, cut into chunks."""
    shared, data = draw(st.sampled_from(STREAMS))
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            data[at : at + 4] = struct.pack("=i", draw(_INTS))
        elif kind == 1:
            data[at : at + 1] = draw(st.binary(max_size=8))
        elif kind == 2:
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == 3:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif kind == 4:
            message = draw(st.sampled_from(["STATUS", "INIT", "POSDATA", "GETFORCE", "EXIT"]))
            data[at:at] = _header(message)
        else:
            del data[at:]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    ends = [0, *cuts, len(data)]
    return shared, [bytes(data[a:b]) for a, b in pairwise(ends)]


@st.composite
def texts(draw, originals: list[str]) -> str:
    """One of *originals* with a few changes."""
    text = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(text) - 1)))
        length = draw(st.integers(0, 40))
        kind = draw(st.integers(0, 3))
        new = draw(_WORDS) if kind == 0 else ""
        if kind == 1:
            new = draw(st.text(max_size=6))
        elif kind == 2:
            new = 2 * text[at : at + length]
        text = text[:at] + new + text[at + length :]
    return text


# --- what must hold -----------------------------------------------------------------------------


def check_stream(case: tuple[bool, list[bytes]]) -> None:
    shared, chunks = case
    decoder = wire.Decoder(N, shared_memory=shared)
    given_so_far = 0
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            given_so_far += len(chunk)
            while (event := decoder.next_event()) is not None:
                if isinstance(event, wire.PosData):
                    assert event.positions.shape[1:] == (N, 3)
                    assert event.positions.nbytes <= given_so_far
            assert len(decoder._buffer) <= given_so_far
    except WireError as error:
        outcomes["stream refused"] += bool(str(error))
    else:
        outcomes["stream taken"] += 1


def check_input(text: str) -> None:
    where = Path(find("nvt-fixed").template.parent) / "input.xml"
    try:
        interpret(parse_xml(text), where)
    except InputError as error:
        outcomes["input refused"] += bool(str(error))
    else:
        outcomes["input taken"] += 1


def check_dictionary(text: str) -> None:
    try:
        check_parameters(split_parameters(text))
        wire.parse_parameters(text)
    except (InputError, WireError) as error:
        outcomes["parameters refused"] += bool(str(error))
    else:
        outcomes["parameters taken"] += 1


TARGETS: dict[str, tuple[Callable, st.SearchStrategy, float]] = {
    "streams": (check_stream, streams(), 0.5),
    "inputs": (check_input, texts(INPUTS), 0.2),
    "parameters": (check_dictionary, texts([PARAMETERS]), 0.3),
}


def run(name: str, cases: int) -> None:
    """*cases* cases of one target; raises what a case raises, with the smallest one that does."""
    check, strategy, _ = TARGETS[name]
    configured = settings(
        max_examples=cases,
        deadline=1000.0 * SECONDS,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    configured(given(strategy)(check))()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    cases = parser.parse_args().cases
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, (_, _, share) in TARGETS.items():
        began = time.monotonic()
        run(name, round(share * cases))
        print(f"{name}: {round(share * cases)} cases, {time.monotonic() - began:.0f} s", flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(dict(outcomes), f"largest resident set grew by {grown:.0f} MB")


if __name__ == "__main__":
    main()
