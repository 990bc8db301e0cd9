"""What another model would have given, from stored frames: oscillators, whose answer is exact."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver.analysis.estimators.reweighting import reweighted
from alchemdriver.cli import main
from alchemdriver.errors import AnalysisError, InputError
from alchemdriver.execute.other_model import OTHER_MODEL, file_of, other_model
from alchemdriver.units import kT

T = 300.0


def other(folder, k_initial: float, k_final: float) -> str:
    """Another model of the same atoms, beside the run's."""
    content = json.loads((folder / "osc.json").read_text())
    content["spring_constants"] = {"Cu": k_initial, "Au": k_final}
    (folder / "other.json").write_text(json.dumps(content))
    return str(folder / "other.json")


def often(stride: int):
    return lambda text: re.sub(r'stride="\d+" (filename="pos")', rf'stride="{stride}" \1', text)


def test_a_switch_of_oscillators_at_other_springs(tmp_path, capsys):
    """2 → 6 eV/Å² in the run, 2.2 → 5 asked: ΔF changes by 3/2 (N − 1) kT ln(5·2 / (6·2.2))."""
    path = rr.oscillator_run(
        tmp_path / "run", temperature=T, masses="fixed", schedule="linear", timestep=6.0,
        equilibrate=300, switch=20, cycles=6, edit=often(10),
    )  # fmt: skip
    assert 'stride="10" filename="pos"' in path.read_text()
    assert rr.command("run", path.parent).returncode == 0
    name = other(tmp_path, 2.2, 5.0)
    main.app(["analyze", str(path.parent), "--also-with", name], standalone_mode=False)
    said = capsys.readouterr().out
    assert f"with {name} instead of" in said
    found = OTHER_MODEL.read(path.parent / file_of(name, None))
    exact = [4.5 * kT(T) * np.log(2.2 / 2.0), 4.5 * kT(T) * np.log(5.0 / 6.0)]
    for end, lam, value in zip(found.ends, (0.0, 1.0), exact, strict=True):
        assert end.lam == lam
        assert end.frames > 80
        assert end.estimate.se < 0.3 * abs(value)
        assert end.estimate.value == pytest.approx(value, abs=3 * end.estimate.se)
    assert found.change.value == pytest.approx(exact[1] - exact[0], abs=3 * found.change.se)
    assert found.change.value == pytest.approx(
        found.ends[1].estimate.value - found.ends[0].estimate.value, abs=1e-15
    )
    # springs five times as hard sample almost nothing of what the run saw
    with pytest.raises(AnalysisError, match=r"of \d+ frames only .* count"):
        other_model([path], other(tmp_path, 2.0, 60.0))


def test_windows_tell_it_too(tmp_path):
    runs = [
        rr.oscillator_run(
            tmp_path / f"w{lam:g}", "windows-nvt", temperature=T, timestep=6.0, steps=1500,
            lambda_=lam, edit=often(20), seed=int(3 + lam),
        )
        for lam in (0.0, 1.0)
    ]  # fmt: skip
    for path in runs:
        assert rr.command("run", path.parent).returncode == 0
    found = other_model(runs, other(tmp_path, 2.0, 5.5))
    assert found.ends[0].estimate.se is None  # the model is the same there, and so is every energy
    assert found.ends[0].estimate.value == pytest.approx(0.0, abs=1e-12)
    last = found.ends[1].estimate
    assert last.value == pytest.approx(4.5 * kT(T) * np.log(5.5 / 6.0), abs=3 * last.se)
    with pytest.raises(AnalysisError, match="no frames at λ = 1"):
        other_model(runs[:1], other(tmp_path, 2.0, 5.5))


def test_scaling_is_refused(tmp_path):
    path = rr.oscillator_run(
        tmp_path / "run", "scaling-nvt", alchemy="model->scaled", scale=0.5, schedule="linear",
        equilibrate=10, switch=20, cycles=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="only a free energy between two states of one model"):
        other_model([path], "demo")


def test_gaussian_differences_are_known_exactly():
    """ΔF = μ − σ²/2kT; the error is the scatter of repetitions, and what is refused is refused."""
    rng, kt = np.random.default_rng(1), 0.025
    found, errors = [], []
    for _ in range(300):
        d = 0.1 + 0.5 * kt * rng.normal(size=(4, 5, 20))
        one = reweighted(0.0, [list(replica) for replica in d], kt)
        found.append(one.estimate.value)
        errors.append(one.estimate.sigma)
    assert np.mean(found) == pytest.approx(0.1 - 0.125 * kt, abs=4 * np.std(found) / 300**0.5)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(found), rel=0.12)
    with pytest.raises(AnalysisError, match="only"):
        reweighted(0.0, [[4.0 * kt * rng.normal(size=400)]], kt)
