"""A few hundred cases of ``fuzz.py``, and the bombs by name."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from campaigns import fuzz

from alchemdriver.client.wire import Decoder
from alchemdriver.errors import WireError


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_broken_input_is_refused_and_nothing_else(name):
    before = sum(fuzz.outcomes.values())
    fuzz.run(name, 200)
    assert sum(fuzz.outcomes.values()) >= before + 200


def test_mutations_reach_both_ends():
    """A fuzzer whose every case is refused at once, or none, tests nothing."""
    fuzz.run("streams", 200)
    assert fuzz.outcomes["stream taken"] > 10
    assert fuzz.outcomes["stream refused"] > 10


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("at", ["init", "count", "name"])
def test_a_length_of_two_gigabytes_allocates_nothing(at, shared):
    big = struct.pack("=i", 2**31 - 1)
    stream = fuzz._header("INIT") + struct.pack("=i", 0) + big
    if at != "init":
        count = big if at == "count" else struct.pack("=i", fuzz.N) + big
        cells = b"" if shared else bytes(144)
        stream = fuzz._init(1) + fuzz._header("POSDATA") + cells + count
    if at == "name" and not shared:
        pytest.skip("names travel with shared memory only")
    decoder = Decoder(fuzz.N, shared_memory=shared)
    tracemalloc.start()
    decoder.feed(stream + bytes(1000))
    with pytest.raises(WireError):  # noqa: PT012  (the good message before it comes first)
        while decoder.next_event() is not None:
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e5
