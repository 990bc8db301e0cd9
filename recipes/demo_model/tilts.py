"""Octahedral tilts of a 2x2x2 perovskite cell."""

import numpy as np
from ase import Atoms


def tilt_amplitudes(atoms: Atoms, reference: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Six amplitudes in degrees: about x, y, z, first anti-phase (R point, a-), then in-phase (M).

    ``reference`` holds the scaled positions (8 B sites, 8 A sites, 24 I) of the untilted 2x2x2
    cell, ``scaled`` those of ``atoms`` without wrapping.  Rotating the octahedron of B site n by φ
    about z moves its I at +x along +y and its I at +y along -x, each by φ a/2; neighbours in the
    plane, which share an I, turn the other way.  The amplitude is the mean of φ(n) times that
    alternating sign.
    """
    lengths = atoms.cell.lengths()
    moved = scaled - reference
    moved -= moved.mean(axis=0)
    moved -= np.round(moved)
    moved *= lengths
    metals = np.flatnonzero((atoms.symbols == "Pb") | (atoms.symbols == "Sn"))
    iodines = np.flatnonzero(atoms.symbols == "I")
    amplitudes = np.zeros((2, 3))
    for metal in metals:
        index = np.rint(reference[metal] * 2).astype(int)
        # The I a quarter of the supercell edge away along each +axis.
        beside = []
        for axis in range(3):
            gap = reference[iodines] - reference[metal] - 0.25 * np.eye(3)[axis]
            gap -= np.round(gap)
            beside.append(moved[iodines[np.argmin((gap**2).sum(axis=1))]] - moved[metal])
        for axis in range(3):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            half = 0.25 * 0.5 * (lengths[u] + lengths[v])
            angle = np.degrees((beside[u][v] - beside[v][u]) / (2 * half))
            plane = (-1) ** (index[u] + index[v])
            amplitudes[0, axis] += plane * (-1) ** index[axis] * angle / len(metals)
            amplitudes[1, axis] += plane * angle / len(metals)
    return amplitudes.ravel()
