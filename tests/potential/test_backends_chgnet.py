"""CHGNet backend against stock CHGNet: end states, moments, derivatives, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

chgnet = pytest.importorskip("chgnet", reason="the optional package chgnet is not installed")

import mace  # noqa: E402, F401  must come before e3nn, which other tests import
import torch  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.build import bulk  # noqa: E402
from helpers import real_runs as rr  # noqa: E402
from helpers import stock_chgnet  # noqa: E402

from alchemdriver import AlchemicalCalculator  # noqa: E402
from alchemdriver.contract import families, shelf  # noqa: E402
from alchemdriver.errors import InputError, ModelError  # noqa: E402
from alchemdriver.potential.backends import chgnet as backend_module  # noqa: E402
from alchemdriver.potential.checks import difference, relative  # noqa: E402
from alchemdriver.potential.open import open_model  # noqa: E402
from alchemdriver.potential.sites import AlchemicalSites  # noqa: E402
from alchemdriver.records import PotentialEvaluation, Structure  # noqa: E402
from alchemdriver.testing import assert_conforms  # noqa: E402

EXACT = 1e-10
# Radial frequencies reach 31π/3 per Å and angles bend sharply at 180°: a smaller step than MACE's.
STEP = 5e-5

CRYSTALS = {
    "oxide": bulk("CeO2", "fluorite", a=5.41).repeat((2, 1, 1)),
    "halide": bulk("NaCl", "rocksalt", a=5.3, cubic=True),
    "metal": bulk("Fe", "bcc", a=2.83, cubic=True).repeat((2, 1, 1)),
}
# A change of element, a site that is empty in one state, and a second, independent group.
STATES = {
    "oxide": [{0: "Ce", 1: "O"}, {0: "Zr"}, {0: "Sn", 1: "F"}, {3: "Ce"}, {3: "Y", 4: "O"}],
    "halide": [{0: "Na", 1: "Cl"}, {0: "K"}, {0: "Li", 1: "Br"}, {2: "Na"}, {2: "Rb", 3: "Cl"}],
    "metal": [{0: "Fe", 1: "Fe"}, {0: "Ni"}, {0: "Co", 1: "Cr"}, {2: "Fe"}, {2: "Mn"}],
}


def crystal(name: str) -> Structure:
    """Displaced and sheared: no symmetry hides an error."""
    atoms = CRYSTALS[name].copy()
    rng = np.random.default_rng(3)
    atoms.set_cell(atoms.cell.array + rng.uniform(-0.1, 0.1, (3, 3)), scale_atoms=True)
    atoms.positions += rng.uniform(-0.1, 0.1, atoms.positions.shape)
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, atoms.cell.array)


@lru_cache
def backend(dtype="float64", name="chgnet-0.3.0"):
    return open_model(name, dtype=dtype)


def stock(structure, symbols, version="0.3.0"):
    """Stock CHGNet of the atoms whose symbol is not None, and its magnetic moments."""
    kept = [i for i, s in enumerate(symbols) if s is not None]
    atoms = Atoms(
        [symbols[i] for i in kept], structure.positions[kept], cell=structure.cell, pbc=True
    )
    energy, some, stress, moments = stock_chgnet.evaluate(atoms, version)
    forces = np.zeros((len(structure), 3))
    forces[kept] = some
    virial = -abs(np.linalg.det(structure.cell)) * stress
    return PotentialEvaluation(energy, forces, virial, np.zeros(0)), moments, kept


def endpoint_errors(name, used, version="0.3.0"):
    """Worst relative errors of (energy, forces, virial) and of the moments over all end states."""
    structure, states = crystal(name), STATES[name]
    sites = AlchemicalSites.from_states(structure.symbols, states)
    potential = used.potential(sites)
    worst, worst_moment = 0.0, 0.0
    for chosen in sites.endpoints():
        weights = np.zeros(sites.n_weights)
        weights[list(chosen)] = 1.0
        args = (structure.positions, structure.cell, structure.pbc, weights)
        expected, moments, kept = stock(structure, sites.endpoint(chosen), version)
        worst = max(worst, difference(potential.evaluate(*args), expected))
        own = np.isin(sites.node_weight, [0, *(a + 1 for a in chosen)])
        assert sites.node_atom[own].tolist() == kept
        found = potential.magnetic_moments(*args)[own]
        worst_moment = max(worst_moment, relative(found, moments))
    return worst, worst_moment


@pytest.mark.parametrize("name", CRYSTALS)
def test_end_states_are_stock_chgnet_and_derivatives_are_exact(name, error_table):
    used, structure = backend(), crystal(name)
    states, moments = endpoint_errors(name, used)
    errors = assert_conforms(used, structure, STATES[name], step=STEP)
    error_table[f"chgnet-0.3.0, {name}"] = {
        "end states": states,
        "identical": errors["identical states"],
        "dE/dλ": errors["slope weights"],
        "forces": errors["slope positions"],
        "virial": errors["slope strain"],
        "moments": moments,
    }
    assert states < EXACT
    assert moments < EXACT
    # teeth: angles are there, and the energy between the ends is not the mixture of the ends
    sites = AlchemicalSites.from_states(structure.symbols, STATES[name])
    potential = used.potential(sites)

    def energy(w):
        return potential.evaluate(structure.positions, structure.cell, structure.pbc, w).energy

    ends = [energy([1, 0, 0, 1, 0]), energy([0, 1, 0, 1, 0])]
    assert len(potential._graph.angles) > 50
    assert abs(energy([0.4, 0.6, 0, 1, 0]) - 0.4 * ends[0] - 0.6 * ends[1]) > 1e-4


def test_iron_has_its_magnetic_moment():
    """A metal whose moments are of order 2 μ_B, so that the comparison above compares something."""
    structure = crystal("metal")
    _, moments, _ = stock(structure, structure.symbols)
    assert moments.max() > 1.0


@pytest.mark.parametrize("name", ["chgnet-0.2.0", "chgnet-r2scan"])
def test_other_versions(name):
    states, moments = endpoint_errors("oxide", backend(name=name), name.removeprefix("chgnet-"))
    assert max(states, moments) < EXACT


def test_float32():
    errors = assert_conforms(backend("float32"), crystal("oxide"), STATES["oxide"])
    assert errors["end states"] > 1e-12  # it is float32


def test_the_default_dtype_of_torch_does_not_matter():
    structure = crystal("oxide")
    sites = AlchemicalSites.plain(structure.symbols)
    args = (structure.positions, structure.cell, structure.pbc, np.zeros(0))
    found = backend().potential(sites).evaluate(*args)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert backend().potential(sites).evaluate(*args).energy == found.energy
    finally:
        torch.set_default_dtype(before)


def test_a_graph_that_is_kept_gives_what_a_new_one_gives():
    structure = crystal("oxide")
    sites = AlchemicalSites.from_states(structure.symbols, STATES["oxide"])
    weights = np.array([0.5, 0.2, 0.3, 0.6, 0.4])
    kept = backend().potential(sites)
    for scale in (1.0, 1.0001, 1.05, 1.0):  # small and large changes of the neighbour list
        args = (structure.positions * scale, structure.cell * scale, structure.pbc, weights)
        assert kept.evaluate(*args).energy == backend().potential(sites).evaluate(*args).energy


# --- mutants: the checks above must see these -------------------------------------------------


def test_mutant_that_sends_angle_messages_unweighted_fails(monkeypatch):
    original = backend_module.ChgnetPotential._nodes

    def mutant(self, d, lam, graph):
        """Messages to bonds take their weight from an edge of weight 1."""
        unweighted = int(torch.nonzero(graph.edge_weight[graph.short_edges] == 0)[0, 0])
        source = torch.full_like(graph.angle_source, unweighted)
        return original(self, d, lam, replace(graph, angle_source=source))

    monkeypatch.setattr(backend_module.ChgnetPotential, "_nodes", mutant)
    assert endpoint_errors("oxide", backend())[0] > 1e-5


def test_mutant_with_angles_between_two_states_of_one_neighbour_fails(monkeypatch):
    original = backend_module._angles
    monkeypatch.setattr(
        backend_module,
        "_angles",
        lambda receivers, origin: original(receivers, np.arange(len(origin))),
    )
    structure = crystal("oxide")
    sites = AlchemicalSites.from_states(structure.symbols, STATES["oxide"])
    same = sites.merged(sites.endpoints()[0])
    args = (structure.positions, structure.cell, structure.pbc, [0.2, 0.5, 0.3, 0.6, 0.4])
    expected, _, _ = stock(structure, sites.endpoint(sites.endpoints()[0]))
    assert difference(backend().potential(same).evaluate(*args), expected) > 1e-6


# --- refusals ---------------------------------------------------------------------------------


def test_isolated_atoms_and_unknown_elements_are_refused():
    lonely = Atoms("NaCl", positions=[[0, 0, 0], [9, 9, 9]], cell=[18] * 3, pbc=True)
    sites = AlchemicalSites.plain(lonely.get_chemical_symbols())
    with pytest.raises(ModelError, match=r"atom 0 has no neighbour within 6 Å"):
        backend().potential(sites).evaluate(
            lonely.positions, lonely.cell.array, lonely.pbc, np.zeros(0)
        )
    with pytest.raises(ModelError, match="does not know Po"):
        backend().potential(AlchemicalSites.plain(["Po", "O"]))
    with pytest.raises(InputError, match="dtype"):
        open_model("chgnet-0.3.0", dtype="float16")


def test_misspelt_name():
    with pytest.raises(ModelError, match=r"did you mean 'chgnet-0\.3\.0'"):
        open_model("chgnet-0.30")


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(families.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'alchemdriver\[chgnet\]'"):
        open_model("chgnet-0.3.0")
    card = next(c for c in shelf.catalogue() if c.name == "chgnet-0.3.0")
    assert card.file is None


# --- wherever a model name is -----------------------------------------------------------------


def test_digest_needs_no_chgnet_and_no_torch():
    code = (
        "import sys; from alchemdriver.contract.shelf import model_digest, catalogue;"
        "d = model_digest('chgnet-0.3.0');"
        "c = [c for c in catalogue() if c.name == 'chgnet-0.3.0'][0];"
        "import hashlib; assert d == hashlib.sha256(c.file.read_bytes()).hexdigest();"
        "print([m for m in ('torch', 'chgnet', 'pymatgen') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=rr.ENV
    )
    assert done.stdout.strip() == "[]"


def test_calculator():
    atoms = CRYSTALS["halide"].copy()
    sodium = [i for i, s in enumerate(atoms.symbols) if s == "Na"]
    states = [dict.fromkeys(sodium, "Na"), dict.fromkeys(sodium, "K")]
    atoms.calc = AlchemicalCalculator(atoms, states, [1.0, 0.0], model="chgnet-0.3.0")
    structure = Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, atoms.cell.array)
    expected, _, _ = stock(structure, structure.symbols)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, rel=EXACT)


def test_prepare_and_run_through_ipi_with_a_vacancy(tmp_path):
    """Eight iron atoms, one of them to void, over a real socket."""
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat((2, 2, 1))
    atoms.write(tmp_path / "fe.xyz", format="extxyz")
    options = ["--temperature", 100, "--equilibrate", 2, "--switch", 3, "--cycles", 1]
    done = rr.command(
        *("prepare", "switch-nvt", tmp_path / "fe.xyz", tmp_path / "run", "--model"),
        *("chgnet-0.3.0", "--alchemy", "Fe[3]->void", "--tether", 4.2, *options),
    )
    assert done.returncode == 0, done.stderr
    done = rr.command("run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "chgnet" in json.dumps(result)


def test_prepare_refuses_an_element_that_chgnet_does_not_know(tmp_path):
    bulk("Fe", "bcc", a=2.83, cubic=True).write(tmp_path / "fe.xyz", format="extxyz")
    done = rr.command(
        *("prepare", "nvt-fixed", tmp_path / "fe.xyz", tmp_path / "run", "--temperature", 100),
        *("--model", "chgnet-0.3.0", "--alchemy", "Fe->Po", "--lambda", 0.5),
    )
    assert done.returncode == 2
    assert "does not know Po" in done.stderr
