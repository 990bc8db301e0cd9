"""The pair repulsion of Ziegler, Biersack and Littmark with mace's envelope, and its slope."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["PairRepulsion"]

_DECAY = np.array([3.2, 0.9423, 0.4028, 0.2016])  # of the universal screening function
_COULOMB = 14.3996  # eV Å
_BOHR = 0.529  # Å, as mace has it


class PairRepulsion:
    """v(d) of a message between two elements, eV: mace's ``ZBLBasis``, half for each direction.

    module: a ``ZBLBasis``, whose parameters are read.
    """

    def __init__(self, module: torch.nn.Module):
        def read(name: str) -> np.ndarray:
            values: np.ndarray = getattr(module, name).detach().double().numpy()
            return values

        self._share = read("c")
        self._exponent, self._radius = float(read("a_exp")), float(read("a_prefactor"))
        self._order = int(read("p"))
        self._covalent = read("covalent_radii")

    def __call__(
        self, lengths: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """v and dv/dd (m,) at *lengths* (m,) Å between atomic numbers *first* and *second* (m,)."""
        d, charges = lengths, first * second
        screening = (
            self._radius
            * _BOHR
            / (first.astype(float) ** self._exponent + second.astype(float) ** self._exponent)
        )
        decay = _DECAY / screening[:, None]  # [m, 4] 1/Å
        terms = self._share * np.exp(-decay * d[:, None])
        phi, to_phi = terms.sum(axis=1), -(decay * terms).sum(axis=1)
        reach = self._covalent[first] + self._covalent[second]
        u, p = d / reach, self._order
        a, b, c = 0.5 * (p + 1) * (p + 2), p * (p + 2), 0.5 * p * (p + 1)
        envelope = 1.0 - a * u**p + b * u ** (p + 1) - c * u ** (p + 2)
        slope = (-a * p + b * (p + 1) * u - c * (p + 2) * u**2) * u ** (p - 1) / reach
        inside = d < reach
        factor = 0.5 * _COULOMB * charges / d * inside
        value = factor * phi * envelope
        return value, factor * (to_phi * envelope + phi * slope) - value / d
