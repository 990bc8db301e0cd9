"""A client's memory stays as it is; ``memory.py`` runs the long version."""

from campaigns import memory


def test_five_thousand_evaluations_take_no_memory():
    before, after = memory.grow(5000)
    assert after - before < 2.0  # MB; a copy of each request kept would be 5 MB
