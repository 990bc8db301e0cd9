"""Extrapolation to large crystals on closed forms."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from ase.build import bulk
from helpers import exact_crystal as exact
from helpers.stored_results import finish, switching_result

from alchemdriver.analysis.compare.gather import (
    Gathered,
    extrapolations,
    gather,
    write_plots,
    write_tables,
)
from alchemdriver.analysis.compare.workflow import Row
from alchemdriver.analysis.corrections.formulas import infinite_size
from alchemdriver.analysis.result import write_result
from alchemdriver.errors import AnalysisError
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import plan

T = 300.0


def row(quantity: str, natoms: int, per_unit: float, temperature: float = 50.0) -> Gathered:
    per = natoms if quantity in ("F", "G") else 1
    return Gathered(
        str(natoms),
        Row(
            quantity, "Frenkel–Ladd", "", temperature, 1.0, per_unit * per, 1e-4 * per, 2e-4 * per,
            None, 4, per, "atom", 1000, 1.0, natoms, 1.0, "demo AlNi", {},
        ),
    )  # fmt: skip


@pytest.mark.parametrize("quantity", ["F", "G"])
def test_absolute_free_energies_extrapolate_with_their_logarithm(quantity):
    """Coupled harmonic crystals, exact at every size, against the infinite crystal."""
    sizes, values = [], []
    for repeat in (2, 3, 4):
        structure = exact.crystal(("Al", "Ni"), repeat)
        sizes.append(len(structure))
        values.append(exact.free_energy(structure, 50.0) / len(structure))
    (found,) = extrapolations([row(quantity, n, v) for n, v in zip(sizes, values, strict=True)])
    infinite = exact.infinite_crystal(("Al", "Ni"), 50.0)
    assert found.sizes == (16, 54, 128)
    assert found.value == pytest.approx(infinite, abs=1e-5)
    naive = np.polyfit([1 / n for n in sizes], values, 1)[1]
    assert abs(naive - infinite) > 3e-5  # what the logarithm is there for


def test_one_size_is_no_extrapolation_and_differences_have_no_logarithm():
    assert extrapolations([row("G", 16, -1.0)]) == []
    (found,) = extrapolations([row("G_v", 54, 2.0 + 1 / 54), row("G_v", 128, 2.0 + 1 / 128)])
    assert found.value == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("errors", [[1e-3, 1e-3, 1e-3], [1e-3, 4e-4, 3e-3]])
def test_the_fit_in_one_over_n_weighs_sizes_by_their_errors(errors):
    """Its SE is the scatter of fits to noise of these errors, the least that any fit can have."""
    sizes = [54, 128, 250]
    values = np.array([-4.0 + 1.7 / n for n in sizes])
    noisy = values + np.random.default_rng(1).normal(size=(1000, 3)) * errors
    fits = np.array([infinite_size(sizes, y, errors) for y in noisy])
    assert np.std(fits[:, 0]) == pytest.approx(fits[0, 1], rel=0.1)
    assert fits[:, 0].mean() == pytest.approx(-4.0, abs=4.0 * fits[0, 1] / np.sqrt(1000))
    alike = np.array([infinite_size(sizes, y, [1e-3] * 3)[0] for y in noisy])
    assert np.std(fits[:, 0]) <= np.std(alike)


# --- phases and folders -------------------------------------------------------------------------


def crystals(root, cases):
    """Finished workflows of crystals: {folder: (atoms, G per atom in eV)}."""
    for folder, (atoms, per_atom) in cases.items():
        structure = Structure(
            tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell)
        )
        common = plan.Common(
            model="demo-fe", temperatures_K=(T,), pressure_bar=1.0, timestep_fs=2.0, replicas=2
        )
        workflow = plan.prepare_crystal(structure, root / folder, common)
        finish(workflow, {"300K/04-frenkel-ladd": (per_atom * len(atoms), 1e-3 * len(atoms))})


def bcc(n):
    return bulk("Fe", "bcc", a=2.83, cubic=True).repeat(n)


def fcc(n):
    return bulk("Fe", "fcc", a=3.6, cubic=True).repeat(n)


def values(rows):
    """Extrapolations by phase, the known logarithm put back."""
    return {e.phase: e.value for e in extrapolations(rows)}


def law(limit, n):
    return limit - 0.5 * kT(T) * np.log(n) / n


def test_polymorphs_of_one_formula_are_not_fitted_together(tmp_path):
    """Limits 0.019 and 0.043 eV; all four in one fit give neither."""
    crystals(
        tmp_path,
        {
            "a": (bcc(2), law(0.019, 16)), "b": (bcc(3), law(0.019, 54)),
            "c": (fcc(2), law(0.043, 32)), "d": (fcc(3), law(0.043, 108)),
        },
    )  # fmt: skip
    rows = gather([tmp_path / x for x in "abcd"])
    found = values(rows)
    assert found == {"Im-3m": pytest.approx(0.019), "Fm-3m": pytest.approx(0.043)}
    write_tables(rows, tmp_path / "out")
    table = list(csv.DictReader((tmp_path / "out" / "gathered.csv").open(encoding="utf-8")))
    assert [r["phase"] for r in table] == ["Im-3m", "Im-3m", "Fm-3m", "Fm-3m"]
    assert [p.name for p in write_plots(rows, tmp_path / "out")] == ["g.png"]


def test_phases_of_one_space_group_are_told_by_folder_or_name(tmp_path):
    cases = {"x/1": (bcc(2), law(0.1, 16)), "x/2": (bcc(3), law(0.1, 54))}
    cases |= {"y/1": (bcc(2), law(0.3, 16)), "y/2": (bcc(3), law(0.3, 54))}
    crystals(tmp_path, cases)
    by_folder = values(gather([tmp_path / x for x in cases]))
    assert by_folder == {"Im-3m, x": pytest.approx(0.1), "Im-3m, y": pytest.approx(0.3)}
    names = {"x": "alpha", "y": "beta"}
    by_name = values(gather([f"{names[x[0]]}={tmp_path / x}" for x in cases]))
    assert by_name == {"alpha": pytest.approx(0.1), "beta": pytest.approx(0.3)}
    (mixed,) = extrapolations(gather([f"one={tmp_path / x}" for x in cases]))
    assert mixed.chi2 > 1000.0


def test_unfinished_folders_are_left_out_with_a_line(tmp_path):
    crystals(tmp_path, {"done": (bcc(2), -1.0), "begun": (bcc(3), -1.0)})
    (tmp_path / "begun" / "300K" / "04-frenkel-ladd" / "done.json").unlink()
    (tmp_path / "empty").mkdir()
    said = []
    rows = gather([tmp_path / "begun", tmp_path / "done", tmp_path / "empty"], said.append)
    assert [g.folder for g in rows] == ["done"]
    assert [line.split(":")[0] for line in said] == ["begun", "empty"]
    with pytest.raises(AnalysisError, match="none of the folders"):
        gather([tmp_path / "begun"])


def test_switches_are_gathered_too(tmp_path):
    """Of two sizes: per formula unit, against 1/N, in the table and in a plot."""
    for size, value in ((4, 0.8), (8, 1.8)):
        folder = tmp_path / f"n{size}"
        folder.mkdir()
        write_result(
            switching_result(
                folder, value, 0.01 * size, natoms=size, formula=f"Cu{size}", alchemy="Cu->Au",
                quantity="ΔF, final minus initial state", formula_units=size,
            )
        )  # fmt: skip
    rows = gather([tmp_path / "n4", tmp_path / "n8"])
    assert [(g.row.quantity, g.row.per_unit, g.row.natoms) for g in rows] == [
        ("ΔF", pytest.approx(0.2), 4),
        ("ΔF", pytest.approx(0.225), 8),
    ]
    (found,) = extrapolations(rows)
    assert found.value == pytest.approx(0.25)
    assert [p.name for p in write_plots(rows, tmp_path / "out")] == ["df.png"]
    text = write_tables(rows, tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "Cu->Au" in text
