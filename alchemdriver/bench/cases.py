"""What ``alchemdriver bench`` measures: random-weight models of the foundation models' shapes, and
the systems of the tables.

Speed does not depend on what the weights are.  The models are stock mace-torch classes with 89
elements; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import ase
import mace  # noqa: F401  must come before e3nn
import numpy as np
import torch
from ase.build import bulk
from e3nn import o3
from mace import modules

from ..contract.shelf import FOUNDATION_ELEMENTS
from ..potential.sites import AlchemicalSites
from ..prepare.demo import alpha_cspbi3
from ..records import Structure

__all__ = ["MODELS", "SYSTEMS", "System", "build_model"]


@dataclass(frozen=True)
class System:
    """A structure, its alchemical states with their weights, and the plain end states."""

    title: str
    structure: Structure
    states: tuple[dict[int, str], ...]
    weights: np.ndarray  # (k,)

    @property
    def sites(self) -> AlchemicalSites:
        return AlchemicalSites.from_states(self.structure.symbols, self.states)

    def ends(self) -> list[AlchemicalSites]:
        """The plain systems of the states that have weight, for linear mixing."""
        with_weight = np.flatnonzero(self.weights).tolist()
        return [AlchemicalSites.plain(self.sites.endpoint([a])) for a in with_weight]

    def frames(self, number: int) -> np.ndarray:
        """Positions (number, N, 3) Å: the structure with every atom moved anew."""
        x = self.structure.positions
        return x + np.random.default_rng(5).normal(scale=0.01, size=(number, *x.shape))


# Shapes of MACE-MP-0 small and medium, and of MACE-MPA-0.
_COMMON = {
    "r_max": 6.0,
    "num_bessel": 10,
    "num_polynomial_cutoff": 5,
    "max_ell": 3,
    "num_interactions": 2,
    "MLP_irreps": o3.Irreps("16x0e"),
    "correlation": 3,
    "gate": torch.nn.functional.silu,
    "radial_MLP": [64, 64, 64],
    "avg_num_neighbors": 40.0,
    "atomic_inter_scale": 0.8,
    "atomic_inter_shift": 0.1,
}
_RESIDUAL = {
    "interaction_cls_first": modules.RealAgnosticResidualInteractionBlock,
    "interaction_cls": modules.RealAgnosticResidualInteractionBlock,
}
MODELS = {
    "small": {"hidden_irreps": o3.Irreps("128x0e"), **_RESIDUAL},
    "L=1": {"hidden_irreps": o3.Irreps("128x0e + 128x1o"), **_RESIDUAL},
    "MPA-0-like": {
        "hidden_irreps": o3.Irreps("128x0e + 128x1o"),
        "interaction_cls_first": modules.RealAgnosticDensityInteractionBlock,
        "interaction_cls": modules.RealAgnosticDensityResidualInteractionBlock,
        "distance_transform": "Agnesi",
        "pair_repulsion": True,
    },
}


@lru_cache
def build_model(name: str, seed: int = 1) -> torch.nn.Module:
    """The model *name* of :data:`MODELS` in float64, on the CPU."""
    numbers = [ase.data.atomic_numbers[s] for s in FOUNDATION_ELEMENTS]
    before = torch.get_default_dtype()
    state = torch.random.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    try:
        model = modules.ScaleShiftMACE(
            num_elements=len(numbers),
            atomic_numbers=numbers,
            atomic_energies=np.linspace(-8.0, -1.0, len(numbers)),
            **{**_COMMON, **MODELS[name]},
        )
    finally:
        torch.set_default_dtype(before)
        torch.random.set_rng_state(state)
    frozen: torch.nn.Module = model.eval().requires_grad_(False)
    return frozen


# --- systems --------------------------------------------------------------------------------


def perovskite(repeat: int | tuple[int, int, int]) -> System:
    """Cubic CsPbI3, every Pb split into Pb and Sn."""
    structure = alpha_cspbi3(repeat)
    lead = [i for i, s in enumerate(structure.symbols) if s == "Pb"]
    return _system("CsPbI3, all Pb split", structure, [lead, lead], ["Pb", "Sn"])


CANTOR = ("Cr", "Mn", "Fe", "Co", "Ni")


def metal(elements: Sequence[str] = ("Cu", "Ni")) -> System:
    """fcc copper, every fourth atom split into *elements*."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(3)
    chosen = list(range(0, len(atoms), 4))
    title = f"fcc Cu, 25 % split into {len(elements)}"
    return _system(title, _of(atoms), [chosen] * len(elements), elements)


def alloy(there: int = 5) -> System:
    """Cantor alloy: every site of fcc is five elements, *there* of which have weight."""
    atoms = bulk("Ni", "fcc", a=3.6, cubic=True).repeat(2)
    everywhere = list(range(len(atoms)))
    title = f"fcc, every site five elements, {there} with weight"
    return _system(title, _of(atoms), [everywhere] * 5, CANTOR, there)


def vacancy(repeat: int = 5) -> System:
    """bcc iron with one atom that is there in the first state only."""
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True).repeat(repeat)
    return _system("bcc Fe, one vacancy", _of(atoms), [[0], []], ["Fe", "Fe"])


SYSTEMS: dict[str, Callable[[], System]] = {
    "perovskite-40": lambda: perovskite(2),
    "perovskite-135": lambda: perovskite(3),
    "perovskite-320": lambda: perovskite(4),
    "perovskite-625": lambda: perovskite(5),
    "perovskite-1080": lambda: perovskite(6),
    "perovskite-10000": lambda: perovskite((20, 10, 10)),
    "metal-108": metal,
    "metal-108-five": lambda: metal(CANTOR),
    "alloy-32": alloy,
    "alloy-32-two": lambda: alloy(2),
    "vacancy-250": vacancy,
}


def _of(atoms: ase.Atoms) -> Structure:
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


def _system(
    title: str,
    structure: Structure,
    where: Sequence[Sequence[int]],
    elements: Sequence[str],
    there: int | None = None,
) -> System:
    """there: how many of the states have weight; None: all."""
    rng = np.random.default_rng(3)
    structure = Structure(
        structure.symbols,
        structure.positions + rng.normal(scale=0.05, size=structure.positions.shape),
        structure.cell,
    )
    states = tuple(dict.fromkeys(sites, s) for sites, s in zip(where, elements, strict=True))
    weights = np.arange(1.0, len(states) + 1)
    if there is not None:
        weights[there:] = 0.0
    title = f"{title}, {len(structure)} atoms"
    return System(title, structure, states, weights / weights.sum())
