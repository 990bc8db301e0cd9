"""Stock CHGNet in float64, to compare with; none of our code is in it.

chgnet keeps its graphs' precision in a module constant of each of three modules, divides integer
counts in torch's default dtype, and ends one function in ``.float()``: all four are set here.
"""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

GPA = 160.21766208  # per eV/Å³, as chgnet converts


@contextlib.contextmanager
def in_float64():
    from chgnet.graph import converter, crystalgraph
    from chgnet.model import model

    modules = (converter, crystalgraph, model)
    before = torch.get_default_dtype()
    try:
        for module in modules:
            module.TORCH_DTYPE = torch.float64
        torch.set_default_dtype(torch.float64)
        yield
    finally:
        for module in modules:
            module.TORCH_DTYPE = torch.float32
        torch.set_default_dtype(before)


@lru_cache
def model(version: str = "0.3.0"):
    from chgnet.model import CHGNet

    with contextlib.redirect_stdout(io.StringIO()):
        loaded = CHGNet.load(model_name=version, use_device="cpu", verbose=False).double().eval()
    loaded.requires_grad_(False)
    # stock, but for its last .float()
    loaded.composition_model._assemble_graphs = lambda graphs: torch.stack(
        [torch.bincount(g.atomic_number - 1, minlength=94) / len(g.atomic_number) for g in graphs]
    )
    return loaded


def evaluate(atoms: Atoms, version: str = "0.3.0"):
    """Energy (eV), forces (N, 3) eV/Å, stress (3, 3) eV/Å³ and moments (N,) μ_B."""
    from pymatgen.core import Lattice, Structure

    with in_float64():
        crystal = Structure(
            Lattice(atoms.cell.array), atoms.numbers, atoms.positions, coords_are_cartesian=True
        )
        net = model(version)
        out = net.forward([net.graph_converter(crystal)], task="efsm")
    energy = out["e"].item() * len(atoms)
    forces, stress, moments = (out[key][0].detach().numpy() for key in "fsm")
    return energy, forces, 0.5 * (stress + stress.T) / GPA, moments


class StockCHGNet(Calculator):
    """The same for ASE."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        energy, forces, stress, _ = evaluate(self.atoms)
        self.results = {
            "energy": energy,
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(stress),
        }


def relaxed(atoms: Atoms, force: float, stress: float, symprec: float = 1e-3) -> Atoms:
    """*atoms* relaxed on stock CHGNet by ASE, symmetry kept: none of our relaxation either."""
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    atoms = atoms.copy()
    atoms.set_constraint(FixSymmetry(atoms, symprec=symprec))
    atoms.calc = StockCHGNet()
    for _ in BFGS(FrechetCellFilter(atoms), logfile=None).irun(fmax=0.0, steps=500):
        left = np.abs(atoms.get_forces()).max(), np.abs(atoms.get_stress()).max()
        if left[0] < force and left[1] < stress:
            return atoms
    raise RuntimeError(f"stock relaxation did not converge: {left}")
