"""Starting crystals for the demonstration models.

Lattice parameters are literature values, to look up in the papers below before they are used for
anything else; Wyckoff coordinates that symmetry leaves free are typical values for the structure
type (tilted perovskite, NH4CdCl3).  Neither reaches the models: every crystal is relaxed with the
reference potential before it is used.  Lengths in Å.

- CsPbI3 α, β, γ: Marronnier et al., ACS Nano 12, 3477 (2018), doi 10.1021/acsnano.8b00267.
- CsPbI3 δ: Stoumpos, Malliakas, Kanatzidis, Inorg. Chem. 52, 9019 (2013), doi 10.1021/ic401215x.
- CsSnI3 α, β, γ, δ: Chung et al., J. Am. Chem. Soc. 134, 8579 (2012), doi 10.1021/ja301539s.
- bcc Fe: a = 2.866 Å, Basinski, Hume-Rothery, Sutton, Proc. R. Soc. A 229, 459 (1955).
"""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

PHASES = ("alpha", "beta", "gamma", "delta")

# Axes as listed per phase in `halide`: Pm-3m (a), P4/mbm (a, c), Pbnm (a, b, c), Pnma (a, b, c).
LATTICE = {
    ("alpha", "Pb"): (6.297,),
    ("beta", "Pb"): (8.827, 6.299),
    ("gamma", "Pb"): (8.620, 8.852, 12.500),
    ("delta", "Pb"): (10.434, 4.791, 17.761),
    ("alpha", "Sn"): (6.206,),
    ("beta", "Sn"): (8.718, 6.191),
    ("gamma", "Sn"): (8.638, 8.689, 12.378),
    ("delta", "Sn"): (10.349, 4.763, 17.684),
}

# Repeats that give cells of 40 or 20 atoms with every edge above 8.5 Å.
CELLS = {
    "alpha": [(2, 2, 2)],  # 40 atoms
    "beta": [(1, 1, 2), (2, 2, 1)],  # 20, 40
    "gamma": [(1, 1, 1), (2, 1, 1)],  # 20, 40
    "delta": [(1, 2, 1)],  # 40
}


def halide(phase: str, metal: str) -> Atoms:
    """One crystallographic cell of CsMI3 (M = Pb or Sn): 5, 10, 20 or 20 atoms."""
    lattice = LATTICE[phase, metal]
    if phase == "alpha":
        sites = {"Cs": [(0.5, 0.5, 0.5)], metal: [(0, 0, 0)], "I": [(0.5, 0, 0)]}
        group, edges = 221, lattice * 3
    elif phase == "beta":  # a0 a0 c+ tilt
        sites = {"Cs": [(0, 0.5, 0.5)], metal: [(0, 0, 0)], "I": [(0, 0, 0.5), (0.21, 0.71, 0)]}
        group, edges = 127, (lattice[0], *lattice)
    elif phase == "gamma":  # a- a- c+ tilt, built as Pnma: (a, b, c) of Pbnm is (c, a, b) there
        sites = {
            "Cs": [(0.035, 0.75, 0.008)],
            metal: [(0, 0, 0.5)],
            "I": [(0.204, 0.026, 0.797), (0.007, 0.25, 0.449)],
        }
        a, b, c = lattice
        group, edges = 62, (b, c, a)
    elif phase == "delta":  # NH4CdCl3 type: edge-sharing double chains along b
        sites = {
            "Cs": [(0.081, 0.75, 0.328)],
            metal: [(0.162, 0.25, 0.061)],
            "I": [(0.029, 0.25, 0.888), (0.163, 0.25, 0.498), (0.204, 0.75, 0.713)],
        }
        group, edges = 62, lattice
    else:
        raise ValueError(f"expected a phase of {PHASES}, got {phase!r}")
    symbols = [element for element, positions in sites.items() for _ in positions]
    basis = [position for positions in sites.values() for position in positions]
    atoms = crystal(symbols, basis, spacegroup=group, cellpar=[*edges, 90, 90, 90])
    if phase == "gamma":
        atoms = _cyclic_axes(atoms)
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)


def iron(repeat: int, vacancy: bool) -> Atoms:
    """Cubic bcc cell of ``2 repeat³`` atoms, one removed if ``vacancy``."""
    atoms = bulk("Fe", "bcc", a=2.866, cubic=True).repeat(repeat)
    atoms.set_initial_magnetic_moments(None)
    if vacancy:
        del atoms[0]
    return atoms


def _cyclic_axes(atoms: Atoms) -> Atoms:
    """The same crystal with axes (c, a, b) in place of (a, b, c); orthogonal cells only."""
    order = [2, 0, 1]
    lengths = atoms.cell.lengths()[order]
    scaled = atoms.get_scaled_positions()[:, order]
    return Atoms(atoms.symbols, scaled_positions=scaled, cell=np.diag(lengths), pbc=True)
