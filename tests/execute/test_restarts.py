"""A short ``restarts.py``: two interruptions of windows; the whole campaign is in benchmarks/."""

from campaigns import restarts


def test_windows_that_are_interrupted_end_like_undisturbed_ones(tmp_path):
    done = restarts.campaign("windows-nvt", tmp_path, ("supervisor killed", "server killed"))
    assert done["interruptions"] == ["supervisor killed", "server killed"]
    assert done["files that differ"] == 0
