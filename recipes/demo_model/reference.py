"""The reference potential: CHGNet 0.3.0, whose weights ship with the ``chgnet`` package.

Deng et al., Nature Machine Intelligence 5, 1031 (2023), doi 10.1038/s42256-023-00716-3.
"""

import contextlib
import io
import warnings

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.model import CHGNet
from chgnet.model.dynamics import CHGNetCalculator


class Reference(CHGNetCalculator):
    """CHGNet as an ASE calculator: energy eV, forces eV/Å, stress eV/Å³ (Voigt)."""

    def __init__(self):
        warnings.filterwarnings("ignore", module="pymatgen|chgnet|ase")
        with contextlib.redirect_stdout(io.StringIO()):
            model = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
            super().__init__(model=model, use_device="cpu", on_isolated_atoms="error")

    def calculate(self, atoms=None, properties=None, system_changes=None):
        super().calculate(atoms, properties, system_changes, task="efs")
        self.results["energy"] = float(self.results["energy"])
        self.results["free_energy"] = self.results["energy"]
        self.results["stress"] = full_3x3_to_voigt_6_stress(self.results["stress"])


def label(atoms: Atoms, calculator: Reference, **info) -> Atoms:
    """A bare copy of ``atoms`` that carries the reference values the trainer reads."""
    frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    frame.calc = calculator
    energy, forces, stress = (
        frame.get_potential_energy(),
        frame.get_forces().copy(),
        frame.get_stress().copy(),
    )
    frame.calc = None
    frame.info.update(info, REF_energy=float(energy), REF_stress=np.asarray(stress, float))
    frame.arrays["REF_forces"] = np.asarray(forces, float)
    return frame
