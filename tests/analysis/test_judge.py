"""What a run printed against what its input asks for: exact cases, and a real run made wrong."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from helpers import analysis_files as af

from alchemdriver import analysis
from alchemdriver.analysis.files.sampled import sampled_frames
from alchemdriver.analysis.files.trajectory import read_trajectory
from alchemdriver.analysis.result import read_result
from alchemdriver.contract.run_input import read_input
from alchemdriver.units import BAR_EV_PER_ANGSTROM3, kT

DATA = Path(__file__).parents[1] / "data" / "analysis" / "switch"
T = 300.0
COLUMNS = ("step", "conserved{electronvolt}", "temperature{kelvin}", "pressure_md{bar}")
COLUMNS += ("volume{angstrom3}",)


def lines(result, word: str) -> list[str]:
    return [w for w in result.warnings if word in w]


def outputs(path: Path, *columns: np.ndarray) -> None:
    """run.out with these COLUMNS after the step."""
    heads = [f"# column   {k + 1}     --> {name} : .\n" for k, name in enumerate(COLUMNS)]
    steps = np.arange(len(columns[0]), dtype=float)
    rows = [af.property_row(*row) for row in np.column_stack([steps, *columns])]
    (path.parent / "run.out").write_text("".join(heads[: len(columns) + 1] + rows))


# --- the first law ------------------------------------------------------------------------------


def scaled_gradients(folder: Path, factor: float, until: int = 10**9) -> None:
    """∂H/∂λ of the real run, as printed by a code that is wrong by *factor* up to a step."""
    (packed,) = folder.glob("run.dHdlambda_0.gz")

    def wrong(match: re.Match[str]) -> str:
        step, value = int(match[1]), float(match[2])
        return f"Step: {step:10d} \n{value * (factor if step <= until else 1.0):24.16e}\n"

    text = gzip.decompress(packed.read_bytes()).decode()
    packed.write_bytes(gzip.compress(re.sub(r"Step:\s+(\d+)\s*\n\s*(\S+)\n", wrong, text).encode()))


def test_a_real_run_closes_and_a_wrong_gradient_does_not(tmp_path):
    """Works ten per cent too large: 0.1 W is missing in every switch, to the integrator's noise."""
    shutil.copytree(DATA, tmp_path / "run")
    good = analysis.analyze(tmp_path / "run", write=False)
    assert not lines(good, "first law")
    assert not lines(good, "drifts")
    scaled_gradients(tmp_path / "run", 1.10)
    bad = analysis.analyze(tmp_path / "run", write=False)
    (check,) = bad.checks
    for s in check.switches:
        works = good.replicas[0].forward if s.direction == "forward" else good.replicas[0].backward
        assert s.mismatch == pytest.approx(-0.1 * works[s.cycle], abs=2e-4)
    (line,) = lines(bad, "first law")
    assert line.startswith("run: ")
    assert "the forward switch of cycle 2" in line
    assert "-15.5 meV" in line


def closure(tmp_path: Path, mismatch: list[float], cycles: int, spread: float = 1e-3) -> list[str]:
    """Lines about the first law, for works of 1 eV and this mismatch (eV) of each switch."""
    path = af.switching_input(tmp_path / "run", 30, 10, cycles, schedule="linear")
    run = read_input(path)
    rng = np.random.default_rng(7)
    works = spread * rng.normal(size=(2, cycles))
    af.run_with_works(path, 1.0 + works[0], -1.0 + works[1])
    conserved = np.loadtxt(path.parent / "run.out")[:, 2]
    for off, s in zip(
        mismatch, (s for s in run.schedule.segments() if "hold" not in s.kind), strict=True
    ):
        conserved[s.stop :] += off
    conserved += 1e-5 * rng.normal(size=len(conserved))
    outputs(path, conserved)
    result = analysis.analyze(path.parent, write=False)
    found = [s.mismatch for s in result.checks[0].switches]
    assert found == pytest.approx(mismatch, abs=1e-4)
    return lines(result, "first law")


def test_what_both_directions_share_leaves_the_difference_alone(tmp_path):
    """4 meV is far above the stated 0.3 meV: an error of ΔF if the directions differ in it."""
    assert closure(tmp_path / "a", 24 * [0.004], 12) == []
    (line,) = closure(tmp_path / "b", 12 * [0.004, -0.004], 12)
    moved = float(re.search(r"moves ΔF by (\S+) meV", line)[1])
    assert moved == pytest.approx(4.0, abs=0.05)


def test_one_bad_switch_among_many_is_named(tmp_path):
    mismatch = np.zeros(24)
    mismatch[6] = 0.05
    (line,) = closure(tmp_path, mismatch.tolist(), 12)
    assert "the forward switch of cycle 4" in line
    assert "+50 meV (+1.9 kT)" in line


def test_a_bad_replica_among_good_ones_is_named(tmp_path):
    """It makes the scatter, so the pooled mismatch is no larger than the pooled error."""
    folders = []
    for k in range(4):
        path = af.switching_input(tmp_path / f"replica-{k + 1}", 30, 10, 3, seed=k)
        works = 1e-3 * np.random.default_rng(k).normal(size=(2, 3)) + [[1.0], [-1.0]]
        af.run_with_works(path, *works)
        if k == 2:  # forces and conserved quantity know nothing of the ten per cent
            gradient = af.lambdas(path) * 0.0
            for s in read_input(path).schedule.segments():
                if "hold" not in s.kind:
                    sign = 1.0 if s.kind == "forward" else -1.0
                    value = 1.1 * sign * works[int(s.kind != "forward"), s.cycle]
                    gradient[s.start : s.stop + 1] = value
            conserved = np.loadtxt(path.parent / "run.out")[:, 2]
            af.write_outputs(path, gradient, conserved)
        folders.append(path.parent)
    found = lines(analysis.analyze(folders, write=False), "first law")
    assert [line.split(":")[0] for line in found] == ["replica-3"]


def test_a_drift_beyond_the_limit_is_said(tmp_path):
    """0.1 kT per atom and ps, of four atoms over 10 ps; 0.005 is nothing, and 0.8 ps too short."""
    for size, steps, expected in ((0.1, 2400, 1), (0.005, 2400, 0), (0.1, 100, 0)):
        path = af.switching_input(tmp_path / f"{size}-{steps}", 100, steps, 2)
        run = read_input(path)
        time = 1e-3 * np.arange(run.total_steps + 1)
        af.write_outputs(path, np.zeros(len(time)), size * kT(T) * 4 * time)
        result = analysis.analyze(path.parent, write=False)
        assert len(lines(result, "drifts")) == expected
        assert result.checks[0].drift == pytest.approx(size, rel=1e-6)


# --- temperature and pressure -------------------------------------------------------------------


def thermal(tmp_path: Path, seed: int, factor: float = 1.0, at: slice | None = None, **options):
    """The result of a run of 4 atoms whose kinetic temperatures are drawn from the exact law."""
    path = af.switching_input(tmp_path / f"run-{seed}", 100, 100, 2, **options)
    n = read_input(path).total_steps + 1
    rng = np.random.default_rng(seed)
    kelvin = T * rng.chisquare(9, n) / 9  # 3 N − 3 degrees of freedom
    kelvin[at if at is not None else slice(None)] *= factor
    af.write_outputs(path, np.zeros(n))
    outputs(path, np.zeros(n), kelvin)
    return analysis.analyze(path.parent, write=False)


def test_canonical_temperatures_are_not_complained_about(tmp_path):
    for seed in range(60):
        result = thermal(tmp_path, seed)
        assert not lines(result, " K")
        assert result.checks[0].degrees_of_freedom == 9


def test_a_hot_run_and_an_exploded_switch_are_named(tmp_path):
    (line,) = lines(thermal(tmp_path, 1, 1.2), "mean temperature")
    assert line.startswith("run-1: ")
    (line,) = lines(thermal(tmp_path, 2, 6e5, slice(350, 400)), "left its ensemble")
    assert "the backward switch of cycle 1" in line


def test_what_has_no_thermostat_has_no_temperature_to_keep(tmp_path):
    result = thermal(tmp_path, 1, 3.0, ensemble="nve")
    assert not lines(result, "mean temperature")
    assert lines(result, "without a thermostat (nve)")


def test_a_pressure_that_moves_the_volume_is_named(tmp_path):
    """Volumes scatter by 5 Å³: kT/σ_V is the pressure that moves them by one σ_V."""
    one = kT(T) / 5.0 / BAR_EV_PER_ANGSTROM3
    for k, shift in enumerate((0.0, 0.3, 1.0)):
        path = af.switching_input(
            tmp_path / f"run-{k}", 200, 100, 2, ensemble="npt",
            pressure="<pressure units='bar'>100</pressure>",
        )  # fmt: skip
        n = read_input(path).total_steps + 1
        rng = np.random.default_rng(k)
        volume, pressure = rng.normal(216.0, 5.0, n), rng.normal(100.0 + shift * one, one, n)
        af.write_outputs(path, np.zeros(n))
        outputs(path, np.zeros(n), np.full(n, T), pressure, volume)
        result = analysis.analyze(path.parent, write=False)
        assert result.checks[0].volume_shift == pytest.approx(shift, abs=0.15)
        assert len(lines(result, "mean pressure")) == (shift == 1.0)


# --- where the atoms are ------------------------------------------------------------------------


def crystal(tmp_path: Path, moved, strain=lambda k: 1.0, frames: int = 40) -> Path:
    """A run of fcc copper whose frames are the start strained, and displaced by *moved*(k) Å."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(2)
    path = af.switching_input(
        tmp_path / "run", 20, 20, 1, symbols=("Cu",) * len(atoms), positions=atoms.positions,
        cell=7.2,
    )  # fmt: skip
    path.write_text(
        path.read_text().replace(
            "</output>",
            "<trajectory stride='2' filename='pos' format='xyz' cell_units='angstrom'>"
            " positions{angstrom} </trajectory></output>",
        )
    )
    n = read_input(path).total_steps + 1
    af.write_outputs(path, np.zeros(n))
    text = ""
    for k in range(frames):
        s = strain(k)
        a = f"{7.2 * s:10.5f}"
        text += f"{len(atoms)}\n# CELL(abcABC): {a} {a} {a}   90.00000   90.00000   90.00000"
        text += f"  Step: {2 * k:11d}  Bead:       0 positions{{angstrom}}  cell{{angstrom}}\n"
        for x in s * atoms.positions + moved(k):
            text += "      Cu" + "".join(f" {v:12.5e}" for v in x) + "\n"
    (path.parent / "run.pos_0.xyz").write_text(text)
    return path


def displaced(tmp_path: Path, *case, **options) -> list[str]:
    path = crystal(tmp_path, *case, **options)
    return lines(analysis.analyze(path.parent, write=False), "from where")


def test_a_hot_crystal_that_breathes_and_drifts_stays_a_crystal(tmp_path):
    """0.2 of the neighbours' distance each way is twice Lindemann's limit."""
    rng = np.random.default_rng(1)
    d = 3.6 / np.sqrt(2)
    found = displaced(
        tmp_path,
        lambda k: 3.0 * k + rng.normal(0.0, 0.2 * d / np.sqrt(3), (32, 3)),
        strain=lambda k: 1.0 + 0.1 * np.sin(k),
    )
    assert found == []


def test_a_melt_and_an_atom_that_flew_are_named(tmp_path):
    rng = np.random.default_rng(2)
    d = 3.6 / np.sqrt(2)
    path = rng.normal(0.0, 1.0, (32, 3))
    path /= np.sqrt((path**2).sum(axis=1).mean())
    (line,) = displaced(tmp_path / "melt", lambda k: d * k / 39 * path)
    assert "melted" in line

    def one(k: int) -> np.ndarray:
        x = np.zeros((32, 3))
        x[5, 0] = 3.0 * d * (k > 20)
        return x

    (line,) = displaced(tmp_path / "one", one)
    assert line.startswith("run: atom 5 is 2.9 times")  # the mass centre goes along by 1/32


def test_sampled_frames_are_those_of_the_whole_trajectory(tmp_path):
    """First and last included, plain, packed, and with a torn end."""
    rng = np.random.default_rng(3)
    path = crystal(tmp_path, lambda k: rng.normal(0.0, 0.1, (32, 3)))
    run, file = read_input(path), path.parent / "run.pos_0.xyz"
    whole = read_trajectory(run)

    def check(last: int) -> None:
        positions, cells = sampled_frames(run, 7)
        assert len(positions) == 7
        assert np.array_equal(positions[0], whole.positions[0])
        assert np.array_equal(positions[-1], whole.positions[last])
        for x in positions:
            assert any(np.array_equal(x, y) for y in whole.positions)
        assert cells[0] == pytest.approx(whole.cells[0], abs=1e-12)

    check(-1)
    data = file.read_bytes()
    Path(f"{file}.gz").write_bytes(gzip.compress(data))
    file.unlink()
    check(-1)
    Path(f"{file}.gz").unlink()
    file.write_bytes(data[:-100])
    assert np.array_equal(sampled_frames(run, 7)[0][-1], whole.positions[-2])
    file.write_bytes(data.replace(b"cell{angstrom}", b"cell{atomic_unit}"))
    assert sampled_frames(run, 7) is None


def test_checks_are_kept_in_the_file(tmp_path):
    shutil.copytree(DATA, tmp_path / "run")
    result = analysis.analyze(tmp_path / "run")
    assert read_result(tmp_path / "run" / "result.json").checks == result.checks
