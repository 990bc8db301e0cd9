"""What is put beside a run must be of the same model, crystal and conditions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from helpers.analysis_files import lambdas, switching_input, write_outputs
from helpers.stored_results import finish, switching_result

from alchemdriver import analysis
from alchemdriver.analysis.compare.beads import BeadPoint, extrapolate
from alchemdriver.analysis.result import Provenance, Result, read_result, write_result
from alchemdriver.contract import shelf
from alchemdriver.errors import AnalysisError
from alchemdriver.paths.formulas import Correction
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import plan

T0, SCALE = 300.0, 0.25


def scaling_run(folder: Path, n: int = 4, **options) -> Path:
    """A switch of model->scaled without dissipation."""
    path = switching_input(
        folder, 0, 40, 1, schedule="linear", alchemy=f"model->scaled, scale: {SCALE}",
        temperature=T0, **options,
    )  # fmt: skip
    s = 1.0 + lambdas(path) * (SCALE - 1.0)
    write_outputs(path, 1.5 * n * kT(T0) * (SCALE - 1.0) / s)
    return path


def from_elsewhere(result: Result, **changes) -> Result:
    """*result* with other provenance."""
    return replace(
        result,
        replicas=tuple(
            replace(r, provenance=replace(r.provenance, **changes)) for r in result.replicas
        ),
    )


@pytest.mark.parametrize(
    ("volume", "changes", "words"),
    [
        (216.0, {"model": "demo-fe"}, "is of model demo-fe, this run of demo"),
        (216.0, {"model_sha256": 64 * "1"}, "with the same model"),
        (217.0, {}, "217 Å\\^3, this run for 216 Å\\^3"),
    ],
)
def test_an_absolute_value_of_something_else_is_refused(tmp_path, volume, changes, words):
    """The same name of another file is another model; F depends on the cell."""
    path = scaling_run(tmp_path / "r")
    good = switching_result(tmp_path / "ref", -1.0, 0.001, volume=216.0)
    good.folder.mkdir()
    write_result(good)
    for option in ("reference", "check"):
        given = {"reference": good.folder, option: good.folder}
        assert analysis.analyze(path, write=False, **given).scaling.reference.value == -1.0
    write_result(
        from_elsewhere(switching_result(tmp_path / "ref", -1.0, 0.001, volume=volume), **changes)
    )
    with pytest.raises(AnalysisError, match=words):
        analysis.analyze(path, write=False, reference=good.folder)
    with pytest.raises(AnalysisError, match=words):
        analysis.analyze(path, write=False, reference=-1.0, check=good.folder)


def test_the_model_on_this_disk_is_told_by_its_bytes(tmp_path):
    path = scaling_run(tmp_path / "r")
    sha = shelf.model_digest("demo", path.parent)
    good = switching_result(tmp_path / "ref", -1.0, 0.001, volume=216.0)
    good.folder.mkdir()
    write_result(from_elsewhere(good, model="/elsewhere/mine.json", model_sha256=sha))
    found = analysis.analyze(path, write=False, reference=good.folder)
    assert found.scaling.reference.value == -1.0


def test_constant_volume_and_pressure_are_not_mixed(tmp_path):
    path = scaling_run(tmp_path / "r")
    folder = tmp_path / "ref"
    folder.mkdir()
    write_result(switching_result(folder, -1.0, 0.001, pressure=100.0, ensemble="npt"))
    with pytest.raises(AnalysisError, match="at 100 bar, this run at constant volume"):
        analysis.analyze(path, write=False, reference=folder)


@pytest.mark.parametrize("bar", [101.0, 0.0, 1100.0])
def test_p_v_of_another_pressure_is_refused(tmp_path, bar):
    """Also one whose digits end like the run's, or that has none of them."""
    path = scaling_run(
        tmp_path / "r", ensemble="npt", pressure="<pressure units='bar'>100</pressure>"
    )
    good = switching_result(
        tmp_path / "ref", -1.0, 0.001, quantity="G of the model crystal (eq. 20)"
    )
    good.folder.mkdir()
    for pressure in (100.0, bar):
        source = f"eq. 20, {pressure:g} bar, 216.000 Å^3"
        write_result(replace(good, terms=(Correction("P V", 0.01, "eV", source),)))
        if pressure == 100.0:
            analysis.analyze(path, write=False, reference=good.folder)
            continue
        with pytest.raises(AnalysisError, match="P V is for another pressure"):
            analysis.analyze(path, write=False, reference=good.folder)


def test_the_result_of_a_folder_of_stages_is_taken(tmp_path):
    """The docs promise it: the Frenkel–Ladd stage at T0 for the reference, at T for the check."""
    atoms = bulk("Pb", "fcc", a=4.95, cubic=True)
    crystal = Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))
    temperatures = (300.0, 600.0)
    common = plan.Common(
        model="demo", temperatures_K=temperatures, pressure_bar=100.0, timestep_fs=2.0, replicas=2
    )
    workflow = plan.prepare_crystal(crystal, tmp_path / "w", common)
    stages = {f"{t:g}K/04-frenkel-ladd": -t for t in temperatures}
    finish(workflow, {name: (value, 0.01) for name, value in stages.items()})
    for name, value in stages.items():
        write_result(
            switching_result(
                tmp_path / "w" / name,
                value,
                0.01,
                temperature=-value,
                formula="Pb4",
                quantity="G of the model crystal (eq. 20)",
            )
        )
    analysis.write_workflow(analysis.analyze_workflow(tmp_path / "w"))
    path = scaling_run(
        tmp_path / "r", symbols=("Pb",) * 4, ensemble="npt",
        pressure="<pressure units='bar'>100</pressure>",
    )  # fmt: skip
    for given in (tmp_path / "w", tmp_path / "w" / "result.json"):
        found = analysis.analyze(path, write=False, reference=given)
        assert found.scaling.reference.value == -300.0
        assert "300K/04-frenkel-ladd" in found.scaling.reference.source
    alone = tmp_path / "w" / "600K/04-frenkel-ladd"
    assert (
        analysis.analyze(path, write=False, reference=-300.0, check=alone).scaling.check.against
    ).value == -600.0
    with pytest.raises(AnalysisError, match=r"found 2: give the result.json of the stage"):
        analysis.analyze(path, write=False, reference=-300.0, check=tmp_path / "w")
    other = scaling_run(
        tmp_path / "s", n=1, symbols=("Pb",), ensemble="npt",
        pressure="<pressure units='bar'>100</pressure>",
    )  # fmt: skip
    with pytest.raises(AnalysisError, match=r"found 0; .* is for Pb4, this run for Pb"):
        analysis.analyze(other, write=False, reference=tmp_path / "w")


def test_the_volume_is_kept_in_the_file(tmp_path):
    path = scaling_run(tmp_path / "r")
    analysis.analyze(path)
    assert read_result(tmp_path / "r" / "result.json").conditions.volume == pytest.approx(216.0)


# --- quantum ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "provenance", "words"),
    [
        ({"volume": 217.0}, {}, "differ in volume"),
        ({"pressure": 1.0}, {}, "differ in pressure"),
        ({}, {"model": "demo-fe"}, "is of model demo-fe"),
        ({}, {"digest": "sha256-b"}, "another digest"),
    ],
)
def test_numbers_of_beads_are_compared_only_where_nothing_else_differs(
    tmp_path, conditions, provenance, words
):
    one, two = (
        from_elsewhere(
            switching_result(tmp_path / f"{beads}", 1.0, 0.01, beads=beads, volume=216.0),
            digest="sha256-a",
        )
        for beads in (4, 8)
    )
    assert analysis.compare_beads([one, two]).points[1].beads == 8
    made = switching_result(tmp_path / "8", 1.0, 0.01, beads=8, **{"volume": 216.0, **conditions})
    two = from_elsewhere(made, **{"digest": "sha256-a", **provenance})
    with pytest.raises(AnalysisError, match=words):
        analysis.compare_beads([one, two])
    assert isinstance(two.replicas[0].provenance, Provenance)


def test_points_off_the_law_enlarge_the_error_of_the_limit():
    """Birge's ratio: where χ² is c per degree of freedom, the error is √c times the fit's."""

    def fit(off: float):
        beads, residual = np.array([1, 2, 4]), off * np.array([0.2, -1.0, 0.8])
        x = beads**-2.0
        residual -= np.polyval(np.polyfit(x, residual, 1), x)
        values = 2.0 + 3.0 * x + residual
        points = [
            BeadPoint(int(p), 0.0, None, 0.0, None, float(y), 0.1)
            for p, y in zip(beads, values, strict=True)
        ]
        return extrapolate(points), float(np.sum(residual**2) / 0.1**2)

    (limit, error, slope, chi2), _ = fit(0.0)
    assert (limit, slope) == (pytest.approx(2.0), pytest.approx(3.0))
    assert chi2 == pytest.approx(0.0, abs=1e-20)
    (_, small, _, low), expected = fit(0.05)
    assert low == pytest.approx(expected)
    assert low < 1.0
    assert small == pytest.approx(error)
    (_, large, _, high), expected = fit(1.0)
    assert high == pytest.approx(expected)
    assert high > 20.0
    assert large == pytest.approx(error * np.sqrt(expected))
