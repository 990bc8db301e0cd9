"""Crystals of the examples, built from Wyckoff positions.

Lattice parameters are starting values: every example relaxes them before it uses them.  Space
groups and Wyckoff positions are textbook prototypes (Wyckoff, Crystal Structures, 2nd ed., 1963):
fluorite, rock salt, wurtzite, cubic perovskite.  Not checked against their sources here: the free
parameters of BiSBr, which are those of the isotypic SbSI (Kikuchi, Oka and Sawaguchi, J. Phys. Soc.
Jpn. 23, 337 (1967)) with rounded lattice parameters of BiSBr.
"""

from __future__ import annotations

from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal


def ceria() -> Atoms:
    """Primitive cell of fluorite CeO2, a = 5.41 Å; its edge is a/√2."""
    return bulk("CeO2", "fluorite", a=5.41)


def bismuth_sulfobromide() -> Atoms:
    """BiSBr, Pnma (62), all atoms on 4c (x, 1/4, z); Pnma setting: chains along b."""
    return crystal(
        ["Bi", "S", "Br"],
        [(0.12, 0.25, 0.13), (0.84, 0.25, 0.05), (0.51, 0.25, 0.82)],
        spacegroup=62,
        cellpar=[8.1, 4.05, 9.9, 90, 90, 90],
    )


def sodium_chloride() -> Atoms:
    """Primitive cell of rock salt NaCl, a = 5.64 Å; its edge is a/√2."""
    return bulk("NaCl", "rocksalt", a=5.64)


def wurtzite(formula: str, a: float, c: float) -> Atoms:
    """P6_3mc (186), both elements on 2b (1/3, 2/3, z), u = 3/8 to start with."""
    return bulk(formula, "wurtzite", a=a, c=c, u=0.375)


def aluminium_nitride() -> Atoms:
    """Wurtzite AlN, a = 3.112 Å, c = 4.982 Å."""
    return wurtzite("AlN", 3.112, 4.982)


def gallium_nitride() -> Atoms:
    """Wurtzite GaN, a = 3.189 Å, c = 5.186 Å."""
    return wurtzite("GaN", 3.189, 5.186)


def perovskite(a_site: str, b_site: str, x_site: str, a: float) -> Atoms:
    """Cubic ABX3, Pm-3m (221): A 1b, B 1a, X 3d; the five atoms in the order A, B, X, X, X."""
    return Atoms(
        f"{a_site}{b_site}{x_site}3",
        scaled_positions=[[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
        cell=[a] * 3,
        pbc=True,
    )


def gamma_caesium_lead_iodide() -> Atoms:
    """γ-CsPbI3, Pnma (62), tilted perovskite: Cs and I 4c (x, 1/4 or 3/4, z), Pb 4b, I 8d.

    Lattice parameters: Marronnier et al., ACS Nano 12, 3477 (2018), as quoted in
    recipes/demo_model/structures.py; coordinates typical of the type.
    """
    return crystal(
        ["Cs", "Pb", "I", "I"],
        [(0.035, 0.75, 0.008), (0, 0, 0.5), (0.204, 0.026, 0.797), (0.007, 0.25, 0.449)],
        spacegroup=62,
        cellpar=[8.852, 12.5, 8.62, 90, 90, 90],
    )


def delta_caesium_lead_iodide() -> Atoms:
    """δ-CsPbI3, Pnma (62), NH4CdCl3 type, all atoms on 4c (x, 1/4 or 3/4, z).

    Lattice parameters: Stoumpos, Malliakas and Kanatzidis, Inorg. Chem. 52, 9019 (2013), as quoted
    in recipes/demo_model/structures.py; coordinates typical of the type.
    """
    return crystal(
        ["Cs", "Pb", "I", "I", "I"],
        [
            (0.081, 0.75, 0.328),
            (0.162, 0.25, 0.061),
            (0.029, 0.25, 0.888),
            (0.163, 0.25, 0.498),
            (0.204, 0.75, 0.713),
        ],
        spacegroup=62,
        cellpar=[10.434, 4.791, 17.761, 90, 90, 90],
    )


def iron() -> Atoms:
    """Cubic cell of bcc iron, a = 2.866 Å."""
    return bulk("Fe", "bcc", a=2.866, cubic=True)
