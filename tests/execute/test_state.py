"""What stands on disk between two starts: it is used, or one line says why not."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil

import pytest
from helpers import real_runs as rr

from alchemdriver import analysis
from alchemdriver.contract import origin
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError, InputError, RunError
from alchemdriver.execute.rows import check_goes_on, resume_point
from alchemdriver.prepare import tree
from alchemdriver.server import checkpoints

LENGTHS = {"equilibrate": 20, "switch": 30, "cycles": 1}
LAST = 100


def often(text: str) -> str:
    return text.replace('stride="200" filename="checkpoint"', 'stride="25" filename="checkpoint"')


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "a"
    rr.oscillator_run(folder, edit=often, **LENGTHS)
    ran = rr.command("run", folder)
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture
def folder(done, tmp_path):
    """A finished run to spoil; its model lies beside it."""
    shutil.copy(done.parent / "osc.json", tmp_path)
    shutil.copytree(done, tmp_path / "a")
    return tmp_path / "a"


def edit(folder, old: str, new: str, name="input.xml") -> None:
    path = folder / name
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new))


def unfinish(folder) -> None:
    """Back to the checkpoint of step 75, the rows behind it being there still."""
    (folder / "RESTART").unlink()
    os.replace(folder / "run.checkpoint.previous", folder / "run.checkpoint")
    assert checkpoints.latest(read_input(folder)).step == 75


# --- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 500, -20, -2])
def test_a_checkpoint_that_is_cut_off_is_passed_over(folder, length, caplog):
    data = (folder / "RESTART").read_bytes().rstrip()
    (folder / "RESTART").write_bytes(data[:length] + bytes(3))  # zeros: a power cut leaves such
    assert checkpoints.latest(read_input(folder)).path.name == "run.checkpoint"
    assert "RESTART is cut off, passed over" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("</simulation>", "</simulatiom>", "mismatched tag"),
        ("alchemy:", "alchemy_of_later:", "unknown parameter 'alchemy_of_later'"),
        ("<simulation", "<simulationx", "damaged, or of another version"),
        ("<step>100</step>", "<step>1oo</step>", "invalid literal"),
        ("<ffsocket", "<ffdirect", "damaged, or of another version"),
    ],
)
def test_any_other_fault_of_a_checkpoint_is_an_error_that_names_it(folder, old, new, says):
    text = (folder / "RESTART").read_text()
    assert old in text
    (folder / "RESTART").write_text(text.replace(old, new))
    with pytest.raises(RunError, match=re.escape(says)) as caught:
        checkpoints.latest(read_input(folder))
    assert str(folder / "RESTART") in str(caught.value)


def test_a_checkpoint_that_cannot_be_opened_is_an_error_that_names_it(folder, monkeypatch):
    """EIO and EMFILE come the same way as the permissions that root does not feel."""
    (folder / "RESTART").unlink()
    (folder / "RESTART").mkdir()
    with pytest.raises(RunError, match=r"RESTART cannot be read \(Is a directory\)"):
        checkpoints.latest(read_input(folder))
    (folder / "RESTART").rmdir()
    shutil.copy(folder / "run.checkpoint", folder / "RESTART")
    run = read_input(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = os.open(folder, os.O_RDONLY)
    os.close(opened)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened, hard))
        with pytest.raises(RunError, match=r"RESTART cannot be read \(Too many open files\)"):
            checkpoints.latest(run)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- what ran -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<seed>1</seed>", "<seed>2</seed>", "<prng seed> is 2 now and was 1"),
        ('mode="langevin"', 'mode="svr"', "thermostat mode> is svr now and was langevin"),
        (">200</tau>", ">100</tau>", "tau> is 100 now and was 200"),
        ("<fixcom>True", "<fixcom>False", "fixcom"),
        ('<tau units="femtosecond">', '<tau units="picosecond">', "tau units> is picosecond now"),
        ('filename="dHdlambda"', 'filename="gradient"', "filename"),
        ("300.0</velocities>", "200.0</velocities>", "velocities> is 200.0 now and was 300.0"),
    ],
)
def test_an_edited_input_is_no_longer_what_ran(folder, old, new, says):
    edit(folder, old, new)
    with pytest.raises((InputError, RunError), match=re.escape(says)) as caught:
        analysis.analyze(folder, write=False)
    assert "\n" not in str(caught.value)
    with pytest.raises((InputError, RunError)):
        checkpoints.latest(read_input(folder))


def test_an_edited_start_or_model_is_no_longer_what_ran(folder):
    start = (folder / "start.xyz").read_text()
    (folder / "start.xyz").write_text(start.replace("4.0", "4.1", 1))
    with pytest.raises(InputError, match=r"the sha256 of start\.xyz is"):
        analysis.analyze(folder, write=False)
    (folder / "start.xyz").write_text(start)
    edit(folder, "6.0", "6.5", "osc.json")
    with pytest.raises(InputError, match="the sha256 of the model is"):
        analysis.analyze(folder, write=False)


def test_a_finished_run_that_goes_on_from_an_earlier_checkpoint_is_sealed_anew(folder):
    """Rows were lost after it ended: what it prints again is what is compared from then on."""
    run = read_input(folder)
    origin.seal(run)
    assert origin.read(run).outputs
    origin.go_on(run, LAST // 2)
    assert origin.read(run).outputs is None
    assert origin.read(run).lengthened == ()


def test_clients_are_not_part_of_a_run(folder):
    edit(folder, "alchemy: ", "clients: any, alchemy: ")
    assert resume_point(read_input(folder)).step == LAST


def test_what_is_not_followed_on_resume_may_not_be_edited(folder):
    edit(folder, "<latency>1e-4<", "<latency>1e-2<")
    with pytest.raises(InputError, match="latency"):
        analysis.analyze(folder, write=False)


def test_what_is_in_no_number_may_be_edited(folder):
    before = analysis.analyze(folder, write=False)
    edit(folder, "<seed>1</seed>", "<!-- a word -->\n <seed> 1.0e0 </seed>".replace("1.0e0", "01"))
    edit(folder, "<timeout>600<", "<timeout>60<")
    edit(folder, "<address>alchemdriver<", "<address>elsewhere<")
    edit(folder, 'verbosity="low"', 'verbosity="quiet"')
    after = analysis.analyze(folder, write=False)
    assert after.totals == before.totals
    assert resume_point(read_input(folder)).step == LAST


def test_a_run_that_is_lengthened_goes_on_and_that_is_written_down(folder, tmp_path):
    edit(folder, "cycles: 1", "cycles: 2")
    edit(folder, "<total_steps>100<", "<total_steps>200<")
    ran = rr.command("run", folder)
    assert ran.returncode == 0, ran.stderr
    assert "a: resuming from step 100" in ran.stderr
    found = origin.read(read_input(folder))
    assert found.total_steps == LAST
    assert [(x.at_step, x.total_steps) for x in found.lengthened] == [(LAST, 2 * LAST)]
    whole = tmp_path / "whole"
    rr.oscillator_run(whole, edit=often, **{**LENGTHS, "cycles": 2})
    assert rr.command("run", whole).returncode == 0
    assert rr.rows(folder / "run.out") == rr.rows(whole / "run.out")
    # and is not cut
    edit(folder, "cycles: 2", "cycles: 1")
    edit(folder, "<total_steps>200<", "<total_steps>100<")
    with pytest.raises(InputError, match="200 steps are done"):
        resume_point(read_input(folder))
    with pytest.raises(AnalysisError, match=r"belong to another input|rows up to step 200"):
        analysis.analyze(folder, write=False)


def test_provenance_is_of_the_model_that_ran(folder):
    """Also where its file is gone."""
    there = analysis.analyze(folder, write=False).replicas[0].provenance
    (folder / "osc.json").unlink()
    assert analysis.analyze(folder, write=False).replicas[0].provenance == there
    assert there.model_sha256 is not None


def test_runs_of_earlier_versions_are_taken_as_they_are(folder):
    origin.path_of(read_input(folder)).unlink()
    assert resume_point(read_input(folder)).step == LAST
    assert analysis.analyze(folder, write=False).totals


def test_what_a_longer_run_cannot_go_on_from_is_refused_before(folder):
    run = read_input(folder)
    check_goes_on(run)
    dh = folder / "run.dHdlambda_0"
    packed = dh.with_name(f"{dh.name}.gz")
    dh.rename(packed)  # a finished run is well without it
    assert resume_point(run).step == LAST
    with pytest.raises(RunError, match=r"run\.dHdlambda_0\.gz is packed.*gunzip"):
        check_goes_on(run)
    packed.rename(dh)
    for name in ("RESTART", "run.checkpoint", "run.checkpoint.previous"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(RunError, match="no checkpoint is left"):
        check_goes_on(run)


# --- rows ---------------------------------------------------------------------------------------


def test_rows_behind_the_checkpoint_are_checked_before_a_resume(folder, caplog):
    unfinish(folder)
    run = read_input(folder)
    assert resume_point(run).step == 75
    dh = folder / "run.dHdlambda_0"
    lines = dh.read_text().splitlines(keepends=True)
    dh.write_text("".join(lines[: 2 * 61]) + "#EXTRAS(dHd")
    with pytest.raises(RunError, match=r"run\.dHdlambda_0 ends at step 60, but run\.checkpoint is"):
        resume_point(run)
    # an earlier checkpoint that they reach will do
    old = (folder / "run.checkpoint").read_text().replace("<step>75<", "<step>50<")
    (folder / "run.checkpoint.previous").write_text(old)
    assert resume_point(run).step == 50
    assert "going on from step 50" in caplog.text
    dh.unlink()
    with pytest.raises(RunError, match=r"run\.dHdlambda_0 is missing"):
        resume_point(run)


# --- writing ------------------------------------------------------------------------------------


def test_an_input_on_a_full_disk_stays_as_it_was(folder):
    """A limit on the size of files stands in for the disk."""
    path = folder / "input.xml"
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
        with pytest.raises(OSError, match="File too large"):
            tree.edit_parameters(path, {"digest": "sha256-0"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert not [f for f in folder.iterdir() if f.name.startswith(".") and "input" in f.name]


def test_the_record_itself_is_checked(folder):
    path = origin.path_of(read_input(folder))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "total_steps": -3}))
    with pytest.raises(InputError, match=r"input\.origin\.json: total_steps: expected a whole"):
        analysis.analyze(folder, write=False)
