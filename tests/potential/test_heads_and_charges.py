"""Heads, total charge and spin: at the end states the numbers of mace's own calculator."""

from __future__ import annotations

import pickle
import warnings

import ase.io
import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
import torch
from ase.build import bulk
from helpers import mace_zoo as zoo
from mace.calculators import MACECalculator

from alchemdriver import AlchemicalCalculator
from alchemdriver.client.assembly import hamiltonian_of
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AlchemdriverError, InputError, ModelError
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.prepare.structure import read_structure
from alchemdriver.shelf import open_model

STATES = [{0: "Na"}, {0: "K"}]
HEADS = ("omat_pbe", "r2scan")
ANION = {"charge": -1, "spin": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    blocks = ("Density", "DensityResidual")
    torch.save(
        zoo.make_model(*blocks, embedding_specs=zoo.CHARGE_AND_SPIN), folder / "charged.model"
    )
    small = {"L": 0, "max_ell": 1, "channels": 2}
    torch.save(zoo.make_model(*blocks, heads=HEADS, **small), folder / "heads.model")
    torch.save(zoo.make_model(*blocks, layers=1, **small), folder / "plain.model")
    return folder


def salt(**info):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.info.update(info)
    return atoms


def stock(model, atoms, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms.calc = MACECalculator(
            model_paths=str(model), device="cpu", default_dtype="float64", **options
        )
        return atoms.get_potential_energy(), atoms.get_forces()


def ours(model, atoms, weights=(1.0, 0.0), **options):
    atoms.calc = AlchemicalCalculator(atoms, STATES, weights, model=str(model), **options)
    return atoms.get_potential_energy(), atoms.get_forces()


@pytest.mark.parametrize(
    ("info", "evaluator"),
    [
        ({}, "auto"),
        (ANION, "auto"),
        (ANION, "cueq"),
        ({"charge": 3}, "stock"),
        ({"spin": 3}, "auto"),
    ],
)
def test_charge_and_spin_are_those_of_the_atoms(folder, info, evaluator):
    if evaluator == "cueq":
        pytest.importorskip("cuequivariance_torch")
    model = folder / "charged.model"
    energy, forces = stock(model, salt(**info))
    if info == ANION:
        assert energy == pytest.approx(-10.827544, abs=1e-6)  # of mace-torch 0.3
    found = ours(model, salt(**info), evaluator=evaluator)
    assert found[0] == pytest.approx(energy, abs=1e-7)
    np.testing.assert_allclose(found[1], forces, atol=1e-6)
    if evaluator == "auto":
        given = ours(model, salt(), **info)
        assert given[0] == pytest.approx(energy, abs=1e-7)


def test_the_other_end_state_has_the_charge_too(folder):
    potassium = salt(**ANION)
    potassium.symbols[0] = "K"
    expected = stock(folder / "charged.model", potassium)[0]
    assert ours(folder / "charged.model", salt(**ANION), (0.0, 1.0))[0] == pytest.approx(expected)


def test_a_charge_that_changes_is_followed(folder):
    atoms = salt()
    before = ours(folder / "charged.model", atoms)[0]
    atoms.info.update(ANION)
    assert atoms.get_potential_energy() == pytest.approx(-10.827544, abs=1e-6)
    again = atoms.copy()
    again.calc = pickle.loads(pickle.dumps(atoms.calc))
    again.calc.reset()
    assert again.get_potential_energy() == atoms.get_potential_energy()
    atoms.info.clear()
    assert atoms.get_potential_energy() == before


@pytest.mark.parametrize(
    ("model", "info", "says"),
    [
        ("plain.model", {"charge": -1}, "takes no total charge, and charge -1"),
        ("plain.model", {"spin": 2}, "takes no spin"),
        ("charged.model", {"charge": 9}, "total charge is a whole number from -4 to 4, got 9"),
        ("charged.model", {"charge": 0.5}, "whole number"),
        ("charged.model", {"charge": "two"}, "charge: expected a number, got 'two'"),
    ],
)
def test_what_a_model_cannot_take_is_refused(folder, model, info, says):
    with pytest.raises(AlchemdriverError, match=says):
        ours(folder / model, salt(**info))


def test_a_neutral_singlet_asks_nothing_of_a_model(folder):
    expected = stock(folder / "plain.model", salt())[0]
    said = salt(charge=0, spin=1)
    assert ours(folder / "plain.model", said)[0] == pytest.approx(expected)


def test_the_fast_evaluator_says_why_it_is_not_for_charges(folder):
    with pytest.raises(ModelError, match="fast evaluator: it has a joint embedding"):
        ours(folder / "charged.model", salt(**ANION), evaluator="fast")


@pytest.mark.parametrize("evaluator", ["fast", "stock"])
def test_heads_are_chosen(folder, evaluator):
    energies = set()
    for head in HEADS:
        expected, forces = stock(folder / "heads.model", salt(), head=head)
        found = ours(folder / "heads.model", salt(), head=head, evaluator=evaluator)
        assert found[0] == pytest.approx(expected, abs=1e-7)
        np.testing.assert_allclose(found[1], forces, atol=1e-6)
        energies.add(round(expected, 3))
    assert len(energies) == len(HEADS)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("heads.model", {}, "several heads, choose one: omat_pbe, r2scan.*--head"),
        ("heads.model", {"head": "r2sccan"}, "no head 'r2sccan' .did you mean 'r2scan'"),
        ("plain.model", {"head": "pbe"}, "no head 'pbe'.*it has Default"),
    ],
)
def test_heads_that_are_not_there(folder, model, options, says):
    with pytest.raises(ModelError, match=says):
        ours(folder / model, salt(), **options)


def test_heads_and_charges_of_models_without_any():
    with pytest.raises(ModelError, match="takes no heads"):
        open_model("chgnet-0.3.0", head="pbe")
    with pytest.raises(ModelError, match="takes no total charge"):
        open_model("demo", charge=1)
    backend = open_model("demo")
    with pytest.raises(InputError, match="a Backend has its own"):
        AlchemicalCalculator(salt(), STATES, [1.0, 0.0], model=backend, head="Default")


def prepared(folder, out, atoms, **keys):
    ase.io.write(out / "x.extxyz", atoms)
    parameters = {"alchemy": "Na->K", "equilibrate": "5", "switch": "5", "cycles": "1", **keys}
    settings = Settings(temperature=300.0, timestep=1.0)
    prepare("switch-nvt", read_structure(out / "x.extxyz"), out / "run", parameters, settings)
    return read_input(out / "run")


def energy_at_start(run, evaluator="auto"):
    s = run.structure
    return hamiltonian_of(run, "cpu", evaluator=evaluator).evaluate(s.positions, s.cell, 0.0).energy


def test_a_run_has_the_charge_of_its_structure(folder, tmp_path):
    run = prepared(folder, tmp_path, salt(**ANION), model=str(folder / "charged.model"))
    assert (run.parameters.charge, run.parameters.spin) == (-1.0, 2.0)
    assert energy_at_start(run) == pytest.approx(-10.827544, abs=1e-6)


def test_a_run_has_the_head_that_was_chosen(folder, tmp_path):
    model = folder / "heads.model"
    run = prepared(folder, tmp_path, salt(), model=str(model), head="r2scan")
    expected = stock(model, salt(), head="r2scan")[0]
    assert energy_at_start(run) == pytest.approx(expected, abs=1e-7)
    with pytest.raises(InputError, match="already holds"):
        prepared(folder, tmp_path, salt(), model=str(model), head="omat_pbe")


def test_a_charge_that_no_named_model_takes_is_refused_at_once(folder, tmp_path):
    atoms = bulk("CsI", "cesiumchloride", a=4.5)
    atoms.info["charge"] = -1
    with pytest.raises(ModelError, match="'demo' takes no total charge, and charge -1"):
        prepared(folder, tmp_path, atoms, model="demo", alchemy="Cs->Pb")
