"""Which cell a stage needs: what symmetry leaves free at either end of a path must be free."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import ase
import numpy as np
import pytest
from ase.build import bulk
from helpers import exact_crystal as exact
from helpers.stored_results import finish

from alchemdriver.analysis import analyze_workflow, workflow_summary
from alchemdriver.errors import AnalysisError, ModelError
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import plan

COMMON = {"temperatures_K": (300.0,), "pressure_bar": 1.0, "timestep_fs": 2.0, "replicas": 2}


def structure(atoms: ase.Atoms) -> Structure:
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


def iron(*more) -> Structure:
    """16 atoms of bcc iron, and *more* at these fractions of the cell."""
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(2)
    for fraction in more:
        atoms.append(ase.Atom("Fe", np.array(fraction) @ atoms.cell.array))
    return structure(atoms)


def perovskite(tin: list[int]) -> Structure:
    """Eight cells of cubic CsPbI3, with tin at these atoms."""
    sites = [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    atoms = ase.Atoms("CsPbI3", scaled_positions=sites, cell=[6.3] * 3, pbc=True) * 2
    atoms.symbols[tin] = "Sn"
    return structure(atoms)


def barostats(workflow, name: str) -> set[str]:
    """The modes of the barostats in all inputs of a stage."""
    texts = [p.read_text(encoding="utf-8") for p in workflow.stage(name).inputs(workflow.root)]
    assert texts
    return {mode for text in texts for mode in re.findall(r"<barostat mode=.(\w+)", text)}


@pytest.mark.parametrize(
    ("crystal", "sites", "path"),
    [
        (iron(), [0], "isotropic"),
        (iron(), [0, 1], "flexible"),  # a pair along one diagonal
        (iron([0.25, 0, 0]), [16], "flexible"),  # an interstitial
    ],
    ids=["vacancy", "divacancy", "interstitial"],
)
def test_the_path_of_a_vacancy_is_as_free_as_its_less_symmetric_end(tmp_path, crystal, sites, path):
    """A defect that is not cubic strains its cell.  An isotropic barostat on the way would keep it
    cubic, and the work would be that to a crystal under shear: not the defect of eq. 12.  Both ends
    have the same barostat: the finite-cell term is from the same modes."""
    workflow = plan.prepare_vacancy(
        crystal, sites, tmp_path / "w", plan.Common(model="demo-fe", **COMMON)
    )
    for stage in ("02-npt", "06-npt-defect", "08-alchemical"):
        assert barostats(workflow, f"300K/{stage}") == {path}
    assert not barostats(workflow, "300K/04-frenkel-ladd")  # at constant volume


@pytest.mark.parametrize(
    ("tin", "alchemy", "path"),
    [
        ([], "Pb->Sn", "isotropic"),
        ([], "Pb[1;6]->Sn", "flexible"),  # neighbours along one edge
        ([1, 6], "Sn->Pb", "flexible"),  # and the way back
    ],
)
def test_the_path_of_a_substitution_is_as_free_as_its_less_symmetric_end(
    tmp_path, tin, alchemy, path
):
    crystal = perovskite(tin)
    workflow = plan.prepare_transmute(
        {"alpha": crystal}, alchemy, tmp_path / "w", plan.Common(model="demo", **COMMON)
    )
    for stage in ("02-npt", "06-npt", "09-alchemical"):
        assert barostats(workflow, f"alpha/300K/{stage}") == {path}


def test_a_head_is_that_of_every_stage(tmp_path):
    """Relaxation, averages and switches of one crystal are of one energy."""
    common = plan.Common(model="demo-fe", head="r2scan", **COMMON)
    workflow = plan.prepare_crystal(iron(), tmp_path / "w", common)
    inputs = [p for stage in workflow.stages for p in stage.inputs(workflow.root)]
    assert len(inputs) >= 4
    for path in inputs:
        assert re.search(r"\bhead\W+r2scan\b", path.read_text(encoding="utf-8")), path
    with pytest.raises(ModelError, match="takes no heads"):
        plan.prepare_crystal(
            iron(), tmp_path / "v", plan.Common(model="chgnet-0.3.0", head="pbe", **COMMON)
        )


def cscl(symbols) -> Structure:
    """27 cells of two atoms."""
    crystal = exact.crystal(repeat=3)
    return replace(crystal, symbols=tuple(symbols))


def test_both_directions_of_an_arrow_are_each_others_negative(tmp_path):
    """One Ni of 27 becomes Pd, and Pd Ni again: one N_WS, one share, kT ln 27 with its sign."""
    common = plan.Common("demo", temperatures_K=(300.0,), pressure_bar=1.0, timestep_fs=2.0)
    common = replace(
        common, model=str(exact.write_model(tmp_path / "c.json", cscl(["Al", "Ni"] * 27)))
    )
    there = cscl(["Al", "Ni"] * 27)
    back = cscl(["Al", "Pd"] + ["Al", "Ni"] * 26)
    springs = json.loads((tmp_path / "c.json").read_text())
    springs["springs"] += [
        {**x, "elements": [{"Ni": "Pd"}.get(e, e) for e in x["elements"]]}
        for x in springs["springs"]
        if "Ni" in x["elements"]
    ]
    (tmp_path / "c.json").write_text(json.dumps(springs))
    found = {}
    for name, structure, alchemy in (("there", there, "Ni[1]->Pd"), ("back", back, "Pd[1]->Ni")):
        workflow = plan.prepare_transmute({"x": structure}, alchemy, tmp_path / name, common)
        settings = workflow.settings
        assert settings.crystals["x"].n_ws == 27
        assert settings.substituted == {"x": 1}  # 27 formula units at one end, 1 at the other
        sign = 1.0 if name == "there" else -1.0
        totals = {
            "x/300K/04-frenkel-ladd": (-200.0 + (sign < 0), 0.01),
            "x/300K/08-frenkel-ladd": (-200.0 + (sign > 0), 0.01),
            "x/300K/09-alchemical": (sign, 0.01),
        }
        finish(workflow, totals)
        result = analyze_workflow(workflow.root)
        rows = [r for r in result.rows if r.quantity == "ΔG"]
        assert {(r.per, r.unit) for r in rows} == {(1, "substituted atom")}
        assert [r.value for r in rows] == pytest.approx([sign, sign])
        found[name] = result.configurational["x 300 K"]
        word = "lowers" if name == "there" else "raises"
        assert f"(it {word} them)" in workflow_summary(result)
    assert found["there"] == pytest.approx(kT(300.0) * np.log(27))
    assert found["back"] == pytest.approx(-found["there"])
    whole = plan.prepare_transmute({"x": there}, "Ni->Pd", tmp_path / "whole", common)
    assert whole.settings.substituted == {}
    assert whole.settings.crystals["x"].formula_units == 27


@pytest.mark.parametrize("off", [1.5e-3, 0.02])
def test_a_crystal_a_little_off_its_sites_is_refused(tmp_path, off):
    """Atoms that are off made N_WS 1 without a word: 85 meV for 54 atoms at 300 K."""
    crystal = exact.crystal(repeat=3)
    away = np.random.default_rng(0).normal(size=(54, 3))
    away *= off / np.linalg.norm(away, axis=1).max()
    shaken = replace(crystal, positions=crystal.positions + away)
    common = plan.Common("demo", temperatures_K=(300.0,), pressure_bar=1.0, timestep_fs=2.0)
    common = replace(common, model=str(exact.write_model(tmp_path / "c.json", crystal)))
    with pytest.raises(
        AnalysisError, match=r"N_WS of eq. 19 is not certain: .* 1 at 0.001 Å, .*27"
    ):
        plan.prepare_crystal(shaken, tmp_path / "w", common)
    given = plan.prepare_crystal(shaken, tmp_path / "w", replace(common, n_ws=27))
    assert given.settings.crystals["crystal"].n_ws == 27
    perfect = plan.prepare_crystal(crystal, tmp_path / "perfect", common)
    assert perfect.settings.crystals["crystal"].n_ws == 27
