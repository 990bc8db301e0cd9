"""The plain calculator: the numbers of mace's own one, for every model of the zoo."""

from __future__ import annotations

import warnings

import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from helpers.mace_zoo import ZOO, salt, zoo_model
from mace.calculators import MACECalculator

from alchemdriver import MaceCalculator
from alchemdriver.errors import InputError, ModelError
from alchemdriver.potential.backends.harmonic import HarmonicBackend
from alchemdriver.potential.backends.mace import MaceBackend

ONE_OF_EACH = ["Residual+Residual, L=2", "Density+DensityResidual, Agnesi, ZBL", "charge and spin"]


def atoms_of(structure, **info):
    atoms = Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=structure.pbc)
    atoms.info.update(info)
    return atoms


def ours(name, **options):
    model, head = zoo_model(name)
    return MaceCalculator(MaceBackend(model, name, head=head, **options))


def stock(name, atoms):
    """In torch's default dtype, as after loading a file: mace multiplies the numbers of ZBL with
    whole atomic numbers, which has the default dtype, 2e-9 off where that is float32."""
    model, head = zoo_model(name)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calculator = MACECalculator(
                models=[model],
                device="cpu",
                default_dtype="float64",
                **({"head": head} if head else {}),
            )
            calculator.calculate(atoms, ["energy", "forces", "stress"])
    finally:
        torch.set_default_dtype(before)
    return calculator.results


@pytest.mark.parametrize("name", ZOO)
def test_equals_maces_own_calculator(name):
    """Every result that both have, of a charged triplet where the model tells one."""
    charged = {"charge": 1, "spin": 3} if "charge" in name else {}
    atoms = atoms_of(salt(), **charged)
    expected = stock(name, atoms)
    calculator = ours(name)
    calculator.calculate(atoms)
    assert set(calculator.results) == set(MaceCalculator.implemented_properties)
    if "embedding readout" in name:  # which mace leaves out of the energies of atoms
        expected["energies"] = calculator.results["energies"]
    for what, value in calculator.results.items():
        scale = max(1.0, np.abs(expected[what]).max())
        assert np.abs(value - expected[what]).max() < 1e-11 * scale, what
    assert calculator.results["energies"].sum() == pytest.approx(
        calculator.results["energy"], abs=1e-11
    )


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_batch_is_its_images_one_by_one(name):
    images = [atoms_of(salt(seed)) for seed in range(3)]
    images[1].set_cell(1.02 * images[1].cell.array, scale_atoms=True)
    calculator = ours(name)
    together = calculator.calculate_batch(images)
    for image, found in zip(images, together, strict=True):
        calculator.calculate(image)
        for what, value in calculator.results.items():
            assert np.allclose(found[what], value, rtol=0, atol=1e-11), what
    assert calculator.calculate_batch([]) == []
    other = images[0].copy()
    other.symbols[0] = "K"
    with pytest.raises(InputError, match="image 1 has other species"):
        calculator.calculate_batch([images[0], other])


def test_any_atoms_one_after_the_other():
    """Other species, another number of atoms, no cell; results are those of a new calculator."""
    name = ONE_OF_EACH[0]
    calculator = ours(name)
    crystal = atoms_of(salt())
    rubidium = crystal.copy()
    rubidium.symbols[2] = "Rb"
    pair = Atoms("NaCl", [[0.0, 0.0, 0.0], [0.0, 0.0, 2.4]])
    for atoms in (crystal, rubidium, pair, crystal[:5], crystal):
        atoms.calc = calculator
        fresh = ours(name)
        fresh.calculate(atoms)
        assert atoms.get_potential_energy() == fresh.results["energy"]
        assert np.array_equal(atoms.get_forces(), fresh.results["forces"])
    assert len(calculator._potentials) == 4
    pair.calc = calculator
    with pytest.raises(PropertyNotImplementedError):
        pair.get_stress()
    with pytest.raises(ModelError, match="Fe"):
        calculator.calculate(bulk("Fe"))


def test_energies_of_atoms_and_stress_of_the_demo_model_by_name():
    atoms = bulk("NaCl", "rocksalt", a=6.2)
    atoms.symbols[:] = ["Pb", "I"]
    atoms.rattle(0.05, seed=2)
    atoms.calc = MaceCalculator("demo")
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())
    assert atoms.get_stress() == pytest.approx(
        calculate_numerical_stress(atoms, eps=1e-5), abs=1e-7
    )
    wide = atoms.copy()
    wide.calc = MaceCalculator("demo", dtype="float32", evaluator="stock")
    assert wide.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    with pytest.raises(ModelError, match="charge"):
        MaceCalculator("demo", charge=1).calculate(atoms)


def test_a_model_without_energies_of_atoms_says_so():
    backend = HarmonicBackend({"Pb": 2.0}, np.zeros((1, 3)), 4.0 * np.eye(3))
    atoms = Atoms("Pb", [[0.1, 0.0, 0.0]], cell=4.0 * np.eye(3), pbc=True)
    atoms.calc = MaceCalculator(backend)
    assert atoms.get_potential_energy() > 0
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()
    with pytest.raises(InputError, match="head"):
        MaceCalculator(backend, head="a")
