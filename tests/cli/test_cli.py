"""The command: quick to start, its verbs, its table of models, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
from helpers import real_runs as rr

import alchemdriver
from alchemdriver.prepare.demo import prepare_demo
from alchemdriver.prepare.protocols import PROTOCOLS
from alchemdriver.server import lock

VERBS = ["demo", "prepare", "run", "server", "client", "analyze", "models", "bench", "doctor"]
VERBS += ["relax", "optimize", "order", "schemes", "campaign", "phases"]
HEAVY = {"torch", "ipi", "mace", "e3nn", "pymbar", "matplotlib", "scipy.stats", "chgnet"}


def imported(code: str) -> set[str]:
    """The heavy modules that *code* leaves imported."""
    report = f"import sys; print(*[m for m in {sorted(HEAVY)!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
        env=rr.ENV,
    )
    return set(done.stdout.splitlines()[-1].split())


CALL = "import sys; sys.argv = ['alchemdriver', {}]\nfrom alchemdriver.cli import main as cli\n"
CALL += "try: cli.main()\nexcept SystemExit: print()"


@pytest.mark.parametrize(
    "code",
    [
        CALL.format("'--help'"),
        CALL.format("'run', '--help'"),
        CALL.format("'prepare', '--help'"),
        CALL.format("'models'"),
        "import alchemdriver\nprint()",
        "import alchemdriver.analysis\nprint()",
    ],
    ids=["help", "run help", "prepare help", "models", "import", "import analysis"],
)
def test_nothing_heavy_is_imported_to_answer_quickly(code):
    assert imported(code) == set()


def test_preparing_and_refusing_need_no_torch():
    code = CALL.format("'run', 'nowhere'")
    assert not imported(code) & {"torch", "ipi", "mace"}


def test_version():
    done = rr.command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"alchemdriver {alchemdriver.__version__}\n"


def test_every_verb_is_listed_and_explains_itself():
    listed = rr.command("--help").stdout
    assert [v for v in VERBS if re.search(rf"^\s+{v}\s", listed, re.M)] == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb):
    done = rr.command(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("alchemdriver pre", {"prepare"}),
        ("alchemdriver prepare scal", {"scaling-nvt", "scaling-npt"}),
        ("alchemdriver prepare scaling-npt a b --sc", {"--scale", "--schedule"}),
        ("alchemdriver relax a --model demo", {"demo", "demo-fe"}),
        ("alchemdriver prepare nvt a b --model demo-", {"demo-fe"}),
    ],
)
def test_the_shell_completes(typed, expected):
    """What bash asks for, and the answer."""
    asked = {
        "_ALCHEMDRIVER_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    code = (
        "import sys; sys.argv[0] = 'alchemdriver'\nfrom alchemdriver.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=rr.ENV | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == expected, done.stderr


def test_a_protocol_has_its_own_options_and_no_others():
    own = rr.command("prepare", "scaling-npt", "--help").stdout
    for flag in ("--scale", "--pressure", "--switch", "--replicas"):
        assert re.search(rf"^  {flag} ", own, re.M)
    for flag in ("--alchemy", "--lambda", "--windows", "--route", "--beads"):
        assert flag not in own
    listed = rr.command("prepare", "--help").stdout
    assert [p.name for p in PROTOCOLS if not re.search(rf"^  {p.name} +\S", listed, re.M)] == []


def test_models_prints_a_table():
    done = rr.command("models")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("name", "licence", "mace-mp-0-small", "MIT"):
        assert word in done.stdout


def test_demo_of_another_model_does_not_continue_what_is_there(tmp_path):
    prepare_demo(tmp_path / "run", seed=1)
    done = rr.command("demo", tmp_path / "run", "--model", "demo-fe")
    assert done.returncode == 2
    assert "another model" in done.stderr


def test_an_unknown_option_is_one_line():
    done = rr.command("run", "--clint", 2, "x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "--clint" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "batch limit"])
def test_a_stopped_run_says_how_to_continue(tmp_path, how):
    """Exit status 130, RESTART written, nobody left behind; and the line it prints works."""
    folder = tmp_path / "my run"
    path = rr.oscillator_run(folder, equilibrate=20, switch=2000, cycles=1)
    log = tmp_path / "run.log"
    process = rr.start("run", "my run", log=log)
    rr.wait_for_step(folder / "run.out", 30, process)
    assert process.poll() is None, log.read_text()
    process.send_signal(how)
    assert process.wait(rr.LIMIT) == 130
    text = log.read_text()
    assert "continue with: alchemdriver run 'my run'" in text
    assert "Traceback" not in text
    assert (folder / "RESTART").is_file()
    with lock.only_server(folder):  # the server is gone
        pass
    assert path.is_file()


def test_a_client_that_is_interrupted_ends_quietly(tmp_path):
    rr.oscillator_run(tmp_path / "a", "nvt-fixed", lambda_=0.5)
    log = tmp_path / "client.log"
    process = rr.start("-v", "client", "a/input.xml", "--unix", f"none-{os.getpid()}", log=log)
    for _ in range(600):
        if "waiting up to" in log.read_text():
            break
        assert process.poll() is None
        rr.time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(rr.LIMIT) == 130
    assert "Traceback" not in log.read_text()
