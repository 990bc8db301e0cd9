"""Every template runs as it stands, only shorter."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from helpers import real_runs as rr

import alchemdriver
from alchemdriver.cli import main
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xyz import read_xyz
from alchemdriver.prepare.protocols import PROTOCOLS, find
from alchemdriver.prepare.render import sign
from alchemdriver.prepare.tree import template_of

FOLDER = find("nvt-fixed").template.parent
RUNS = [p.name for p in PROTOCOLS if not p.in_stages]
EMBEDDED = Path(alchemdriver.__file__).parent / "models" / "demo.json"


def shorten(text: str) -> str:
    """Lengths only: holds of 1 step and switches of 2, or 3 steps at fixed λ, all printed."""
    text = re.sub(r"equilibrate: \d+, switch: \d+", "equilibrate: 1, switch: 2", text)
    text = re.sub(r"stride='10'", "stride='1'", text)
    steps = 6 if "schedule" in text else 3
    return re.sub(r"<total_steps>\d+", f"<total_steps>{steps}", text)


def test_every_file_is_a_protocol():
    assert sorted(p.name for p in FOLDER.glob("*.xml")) == sorted(
        find(name).template.name for name in RUNS
    )


@pytest.mark.parametrize("protocol", RUNS)
def test_a_template_reads_as_it_stands(protocol):
    run = read_input(find(protocol).template)
    assert run.structure.symbols == read_xyz(FOLDER / "start.xyz").symbols
    assert run.parameters.model == "demo"
    assert run.floatformat == "%24.16e"


@pytest.mark.parametrize("protocol", RUNS)
def test_the_table_says_what_the_template_is(protocol):
    known, run = find(protocol), read_input(find(protocol).template)
    assert known.switches == (run.schedule is not None)
    assert known.constant_pressure == (run.pressure is not None) == (run.ensemble == "npt")
    assert known.path_integrals == (run.beads > 1)
    keys = run.parameters
    assert known.has("alchemy") == (keys.alchemy == "Pb->Sn")
    assert ("scale" in [o.name for o in known.needs]) == (keys.scale is not None)
    mode = template_of(known)["system"]["motion"]["dynamics"].get("barostat", {}).get("@mode")
    assert (mode == "flexible") == protocol.endswith("flexible")


@pytest.mark.skipif(not EMBEDDED.is_file(), reason="the embedded model 'demo' is not there yet")
@pytest.mark.parametrize("protocol", RUNS)
def test_a_template_runs(tmp_path, monkeypatch, protocol):
    folder = tmp_path / "a"
    folder.mkdir()
    shutil.copy(FOLDER / "start.xyz", folder)
    path = folder / "input.xml"
    path.write_text(shorten(find(protocol).template.read_text()))
    sign(path)
    # the client runs in this process, which imports torch and mace once for all templates
    prefix = f"/tmp/alchemdriver-template-{os.getpid()}-"
    server = rr.start("server", path, "--socket-prefix", prefix, log=tmp_path / "server.log")
    try:
        monkeypatch.setattr("sys.argv", ["", "client", str(path), "--socket-prefix", prefix])
        with pytest.raises(SystemExit) as end:
            main.main()
        assert end.value.code == 0
        assert server.wait(rr.LIMIT) == 0, (tmp_path / "server.log").read_text()
    finally:
        server.kill()
        server.wait()
    complete(folder)


@pytest.mark.parametrize("protocol", ["nvt-fixed", "switch-npt"])
def test_a_template_runs_on_the_analytic_backend(tmp_path, protocol):
    lengths = {"equilibrate": 1, "switch": 2, "cycles": 1}
    if not protocol.startswith("switch"):
        lengths = {"lambda_": 0.5, "steps": 3}
    rr.oscillator_run(tmp_path / "a", protocol, **lengths)
    assert rr.command("run", tmp_path / "a").returncode == 0
    complete(tmp_path / "a")


def complete(folder):
    """Done to the last step, with λ and ∂H/∂λ of every step and bead."""
    run = read_input(folder)
    assert (folder / "RESTART").is_file()
    assert set(rr.rows(folder / "run.out")) == set(range(run.total_steps + 1))
    for bead in range(run.beads if run.extras else 0):
        lam = rr.frames(folder / f"run.lambda_{bead}")
        assert {k: float(v) for k, v in lam.items()} == {
            k: run.lam_at(k) for k in range(run.total_steps + 1)
        }
        assert len(rr.frames(folder / f"run.dHdlambda_{bead}")) == run.total_steps + 1
