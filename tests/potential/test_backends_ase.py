"""ASE calculators as models: what works, and what a calculator may get wrong."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT

from alchemdriver.composition.relaxation import relax_atoms
from alchemdriver.errors import ModelError
from alchemdriver.potential.calculator import AlchemicalCalculator
from alchemdriver.potential.open import open_model
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.records import Structure
from alchemdriver.testing import assert_conforms

HEAD = """
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT


class Wrong(EMT):
"""
TAIL = """


def calculator(device, dtype):
    return Wrong()
"""


@pytest.fixture
def atoms():
    found = bulk("Cu", cubic=True) * (2, 2, 2)
    found.symbols[3] = "Au"
    found.rattle(0.05, seed=1)
    return found


@pytest.fixture
def structure(atoms):
    return structure_of(atoms)


def structure_of(atoms) -> Structure:
    return Structure(
        tuple(atoms.get_chemical_symbols()), atoms.positions, atoms.cell.array, tuple(atoms.pbc)
    )


def wrong(tmp_path, body: str, tail: str = TAIL):
    file = tmp_path / "wrong.py"
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    file.write_text(HEAD + indented + tail)
    return open_model(str(file))


def evaluate(backend, s: Structure, symbols=None):
    potential = backend.potential(AlchemicalSites.plain(symbols or s.symbols))
    return potential.evaluate(s.positions, s.cell, s.pbc, np.zeros(0))


def test_emt_conforms(structure):
    """A step of 1e-4: EMT's cut-off function bends sharply."""
    assert_conforms(open_model("emt"), structure, states=[], step=1e-4)


def test_numbers_are_those_of_ase(atoms, structure):
    found = evaluate(open_model("emt"), structure)
    atoms.calc = EMT()
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-10)
    stress = atoms.get_stress(voigt=False)
    np.testing.assert_allclose(found.virial, -atoms.get_volume() * stress, atol=1e-9)


def test_an_atom_that_is_not_there_is_left_out(atoms, structure):
    symbols = (*structure.symbols[:5], None, *structure.symbols[6:])
    found = evaluate(open_model("emt"), structure, symbols)
    del atoms[5]
    atoms.calc = EMT()
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_array_equal(found.forces[5], 0.0)
    np.testing.assert_allclose(np.delete(found.forces, 5, axis=0), atoms.get_forces(), atol=1e-10)


def test_there_is_no_weighted_graph(structure):
    sites = AlchemicalSites.from_states(structure.symbols, [{0: "Cu"}, {0: "Au"}])
    with pytest.raises(ModelError, match=r"whole atoms only.*interpolation: linear"):
        open_model("emt").potential(sites)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def calculate(self, *args): raise RuntimeError('out of\\nmemory')", "out of memory"),
        (
            "def calculate(self, *args):\n    super().calculate(*args)\n"
            "    self.results['forces'][0, 0] = np.nan",
            "forces not finite",
        ),
        (
            "def calculate(self, *args):\n    super().calculate(*args)\n"
            "    del self.results['stress']",
            "gives no stress",
        ),
        (
            "def calculate(self, *args):\n    super().calculate(*args)\n"
            "    self.results['forces'] = self.results['forces'][1:]",
            r"expected forces of shape \(32, 3\)",
        ),
    ],
    ids=["raises", "nan", "keeps quiet", "loses an atom"],
)
def test_what_fails_says_so_in_one_line(tmp_path, structure, body, message):
    with pytest.raises(ModelError, match=message) as caught:
        evaluate(wrong(tmp_path, body), structure)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "check"),
    [
        (
            "def calculate(self, *args):\n    super().calculate(*args)\n"
            "    self.results['forces'] = self.results['forces'][::-1]",
            "permutation|slope positions",
        ),
        (
            "calls = 0\ndef calculate(self, *args):\n    super().calculate(*args)\n"
            "    self.calls += 1\n"
            "    for name in ('energy', 'free_energy'):\n"
            "        self.results[name] += 1e-9 * self.calls",
            "repetition",
        ),
    ],
    ids=["renumbers", "remembers"],
)
def test_conformance_finds_a_calculator_that_lies(tmp_path, structure, body, check):
    with pytest.raises(ModelError, match=f"does not conform: ({check})"):
        assert_conforms(wrong(tmp_path, body), structure, states=[], step=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def calculator(device, dtype) return 1", "SyntaxError"),
        ("import no_such_package", "no_such_package"),
        ("x = 1", r"expected a function calculator\(device, dtype\)"),
        ("def calculator(): pass", r"calculator\(\) fails: TypeError"),
        ("def calculator(device, dtype): return 3.0", "expected .* an ASE calculator, got a float"),
        (
            "from ase.calculators.calculator import Calculator\n"
            "class C(Calculator):\n    implemented_properties = ['energy']\n"
            "def calculator(device, dtype): return C()",
            "gives no forces, which dynamics need",
        ),
    ],
)
def test_a_file_that_makes_no_calculator_is_refused(tmp_path, text, message):
    (tmp_path / "calc.py").write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        open_model("calc.py", tmp_path)
    assert "\n" not in str(caught.value)


def test_the_energy_is_the_one_whose_slope_the_forces_are(tmp_path, structure):
    """With smearing, ASE's energy is extrapolated to zero width and the forces are not."""
    body = (
        "implemented_properties = [*EMT.implemented_properties, 'free_energy']\n"
        "def calculate(self, *args):\n    super().calculate(*args)\n"
        "    self.results['free_energy'] = self.results['energy']\n"
        "    self.results['energy'] += 0.5"
    )
    found = evaluate(wrong(tmp_path, body), structure)
    assert found.energy == pytest.approx(evaluate(open_model("emt"), structure).energy, abs=1e-10)


def test_without_stress_nobody_is_told_zero(tmp_path, atoms):
    """Neither by the calculator nor to a relaxation, which would stop where it began."""
    backend = wrong(tmp_path, "implemented_properties = ['energy', 'forces']")
    atoms.calc = AlchemicalCalculator(atoms, [], [], model=backend)
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    with pytest.raises(ModelError, match="gives no stress"):
        relax_atoms(atoms, backend)


def test_device_and_precision_reach_the_function(tmp_path, structure):
    (tmp_path / "calc.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "def calculator(device, dtype):\n"
        "    assert (device, dtype) == ('cuda:1', 'float32'), (device, dtype)\n"
        "    return EMT()\n"
    )
    backend = open_model("calc.py", tmp_path, device="cuda:1", dtype="float32")
    assert (backend.dtype, backend.device_type) == ("float32", "cuda")
