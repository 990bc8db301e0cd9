"""One minute of ``soak.py``: four beads under random kills."""

from campaigns import soak


def test_a_minute_of_kills_changes_no_number(tmp_path):
    done = soak.soak(tmp_path, minutes=1.0, seed=7)
    assert sum(done["faults"].values()) >= 3
    assert sum(done["rounds"].values()) >= 1
