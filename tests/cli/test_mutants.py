"""A few of the mutants of ``campaigns.mutants``, which makes a thousand."""

import subprocess
import sys

from helpers import real_runs as rr


def test_mutated_run_folders(tmp_path):
    """In a process of its own: it forks, and imports what the commands import."""
    code = (
        "import sys; from pathlib import Path; from campaigns import mutants; "
        "found = mutants.campaign(Path(sys.argv[1]), 15, 3); print(found['wrong']); "
        "sys.exit(bool(found['wrong']))"
    )
    from campaigns import mutants

    home = str(rr.Path(mutants.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=rr.ENV | {"PYTHONPATH": home},
        capture_output=True, text=True, timeout=10 * rr.LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
