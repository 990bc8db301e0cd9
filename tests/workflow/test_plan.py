"""Which cell a stage needs: what symmetry leaves free at either end of a path must be free."""

from __future__ import annotations

import re

import ase
import numpy as np
import pytest
from ase.build import bulk

from alchemdriver.errors import ModelError
from alchemdriver.records import Structure
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
    ("crystal", "sites", "perfect", "defect", "path"),
    [
        (iron(), [0], "isotropic", "isotropic", "isotropic"),
        (iron(), [0, 1], "isotropic", "flexible", "flexible"),  # a pair along one diagonal
        (iron([0.25, 0, 0]), [16], "flexible", "isotropic", "flexible"),  # an interstitial
    ],
    ids=["vacancy", "divacancy", "interstitial"],
)
def test_the_path_of_a_vacancy_is_as_free_as_its_less_symmetric_end(
    tmp_path, crystal, sites, perfect, defect, path
):
    """A defect that is not cubic strains its cell.  An isotropic barostat on the way would keep it
    cubic, and the work would be that to a crystal under shear: not the defect of eq. 12."""
    workflow = plan.prepare_vacancy(
        crystal, sites, tmp_path / "w", plan.Common(model="demo-fe", **COMMON)
    )
    assert barostats(workflow, "300K/02-npt") == {perfect}
    assert barostats(workflow, "300K/06-npt-defect") == {defect}
    assert barostats(workflow, "300K/08-alchemical") == {path}
    assert not barostats(workflow, "300K/04-frenkel-ladd")  # at constant volume


@pytest.mark.parametrize(
    ("tin", "alchemy", "initial", "final", "path"),
    [
        ([], "Pb->Sn", "isotropic", "isotropic", "isotropic"),
        ([], "Pb[1;6]->Sn", "isotropic", "flexible", "flexible"),  # neighbours along one edge
        ([1, 6], "Sn->Pb", "flexible", "isotropic", "flexible"),  # and the way back
    ],
)
def test_the_path_of_a_substitution_is_as_free_as_its_less_symmetric_end(
    tmp_path, tin, alchemy, initial, final, path
):
    crystal = perovskite(tin)
    workflow = plan.prepare_transmute(
        {"alpha": crystal}, alchemy, tmp_path / "w", plan.Common(model="demo", **COMMON)
    )
    assert barostats(workflow, "alpha/300K/02-npt") == {initial}
    assert barostats(workflow, "alpha/300K/06-npt") == {final}
    assert barostats(workflow, "alpha/300K/09-alchemical") == {path}


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
