"""CHGNet as an alchemical potential, on the unmodified layers of the ``chgnet`` package.

Deng et al., Nature Machine Intelligence 5, 1031 (2023).  Symbols of the paper's SI, section II.A,
and names here:

| SI                        | here                                                             |
|---------------------------|------------------------------------------------------------------|
| v_(i,α)                   | ``v``: one row per node                                          |
| e_(i,α),(j,β)             | ``e``: one row per expanded bond, both directions share it       |
| a_(i,α),(j,β),(k,γ)       | ``a``: one row per expanded angle                                |
| ω in eqs. S1c, S1d        | ``omega``: one row per directed edge                             |
| E = Σ λ_α E_(i,α), eq. S2b| ``energy`` in :meth:`ChgnetPotential.evaluate`                   |

CHGNet's bonds have no direction and ω has.  Two index lists let the stock layers carry it: the atom
convolution is handed one "bond" per directed edge; the bond convolution a bond list that goes on,
after its own rows, with one row per short directed edge, from which angle messages are sent.

Angles are pairs of *different original* edges into one node.  Pairs made from the expanded graph
alone would contain an angle of zero between two states of one neighbour.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from ...errors import ModelError
from ...records import PotentialEvaluation
from ..precision import default_dtype, require_device, torch_dtype
from ..sites import AlchemicalSites
from .base import (
    Backend,
    Potential,
    check_arguments,
    require_elements,
    require_finite,
)
from .neighbours import Bonds, bonds_within, sum_rows

with warnings.catch_warnings():  # of pymatgen, about its own later versions
    warnings.simplefilter("ignore")
    from chgnet.model import CHGNet

__all__ = ["ChgnetBackend", "ChgnetPotential", "open_named"]

# In none of the 89-element training sets; their atom references are the noise of a linear fit.
_UNTRAINED = frozenset({"Po", "At", "Rn", "Fr", "Ra"})


class ChgnetBackend(Backend):
    """A CHGNet energy model, frozen, on *device* in *dtype*.

    Arguments
        version: '0.3.0', '0.2.0' or 'r2scan', whose weights ship with the chgnet package.
        name: what messages call it.
        device, dtype: as for ``MaceBackend``.

    Energies are totals in eV, the atom references included; stock CHGNet gives eV per atom.
    Raises ModelError for a model whose site energies do not come from atoms alone.
    """

    def __init__(self, version: str, name: str, device: str = "cpu", dtype: str = "float64"):
        self.torch_dtype = torch_dtype(dtype)
        with contextlib.redirect_stdout(io.StringIO()):  # it announces its size
            model = CHGNet.load(model_name=version, use_device="cpu", verbose=False)
        if not model.mlp_first:
            raise ModelError(f"model '{name}' pools atoms before its readout: not supported")
        self.name = name
        self.dtype = dtype
        self.device = torch.device(device)
        self.device_type = self.device.type
        self.cutoff = float(model.graph_converter.atom_graph_cutoff)
        self.angle_cutoff = float(model.graph_converter.bond_graph_cutoff)
        reference = np.zeros(model.atom_embedding.embedding.num_embeddings)
        if model.composition_model is not None:
            reference = model.composition_model.fc.weight.detach().double().numpy()[0]
        self.atom_reference = reference  # [Z − 1] eV
        self.elements = frozenset(
            symbol
            for symbol, energy in zip(chemical_symbols[1:], reference, strict=False)
            if symbol not in _UNTRAINED and energy != 0.0
        )
        self.model = model.to(device=self.device, dtype=self.torch_dtype).eval()
        self.model.requires_grad_(False)

    def __repr__(self) -> str:
        return f"ChgnetBackend({self.name}, {self.device}, {self.dtype})"

    def potential(self, sites: AlchemicalSites) -> ChgnetPotential:
        require_elements(self.name, self.elements, sites)
        return ChgnetPotential(self, sites)


def open_named(name: str, path: Path, device: str, dtype: str, evaluator: str) -> ChgnetBackend:
    """The model called *name*, whose weights are *path* inside the chgnet package."""
    require_device(device, dtype)
    return ChgnetBackend(name.removeprefix("chgnet-"), name, device, dtype)


@dataclass(frozen=True)
class _Graph:
    """The expanded graph: D directed edges, U bonds, A angles; all tensors of indices."""

    bonds: Bonds  # of the neighbour list that it was made for
    short: np.ndarray  # (B,) original bonds that make angles
    edges: torch.Tensor  # [D, 2] receiving node, sending node
    edge_weight: torch.Tensor  # [D] α of ω
    edge_bond: torch.Tensor  # [D] expanded bond of each edge
    bond_origin: torch.Tensor  # [U] original bond of each
    short_edges: torch.Tensor  # [D_s] the edges that send angle messages
    angles: torch.Tensor  # [A, 3] node, bond that receives, bond that sends
    angle_source: torch.Tensor  # [A] position of the sending edge among short_edges
    angle_vectors: torch.Tensor  # [A, 2] original directed edges; −1 − b is bond b backwards

    def fits(self, bonds: Bonds, short: np.ndarray) -> bool:
        old = self.bonds
        return (
            np.array_equal(old.first, bonds.first)
            and np.array_equal(old.second, bonds.second)
            and np.array_equal(old.shift, bonds.shift)
            and np.array_equal(self.short, short)
        )


class ChgnetPotential(Potential):
    """E(x, cell, λ) of one set of sites; made by :meth:`ChgnetBackend.potential`."""

    def __init__(self, backend: ChgnetBackend, sites: AlchemicalSites):
        self.backend = backend
        self.sites = sites
        species = self._indices(sites.node_number - 1)
        self.embedded = backend.model.atom_embedding(species)  # [n, C]
        self.node_weight = torch.from_numpy(sites.node_weight.copy())  # λ lives on the CPU
        # the references are linear in λ: summed once per weight, in float64
        self.constant = np.bincount(
            sites.node_weight,
            backend.atom_reference[sites.node_number - 1],
            minlength=sites.n_weights + 1,
        )
        self._graph: _Graph | None = None  # of the last neighbour list; relaxations keep it

    def _indices(self, values: ArrayLike) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64), device=self.backend.device)

    # --- evaluation -------------------------------------------------------------------------

    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> PotentialEvaluation:
        """See ``Potential``.

        The leaves of the backward pass are the bond vectors d and λ.  With g = ∂E/∂d,
        F_i = Σ_(i→j) g − Σ_(j→i) g and virial = −Σ d ⊗ g, summed in float64.
        """
        name, sites = self.backend.name, self.sites
        positions, cell, weights = check_arguments(name, sites, positions, cell, weights)
        bonds, graph = self._graph_of(positions, cell, pbc)
        vectors = torch.as_tensor(bonds.vector, dtype=self.backend.torch_dtype)
        d = vectors.to(self.backend.device).requires_grad_()
        # λ in float64 on the CPU, whatever the model runs in and on
        lam = torch.from_numpy(np.concatenate([[1.0], weights])).requires_grad_()
        site_energy, _ = self._nodes(d, lam, graph)
        energy = (lam[self.node_weight] * site_energy.cpu().double()).sum()  # eq. S2b
        to_d, gradient = torch.autograd.grad(energy, [d, lam], materialize_grads=True)

        slope = to_d.cpu().numpy().astype(np.float64)  # [B, 3] eV/Å
        forces = sum_rows(slope, bonds.first, sites.n_atoms)
        forces -= sum_rows(slope, bonds.second, sites.n_atoms)
        virial = -bonds.vector.T @ slope
        found = PotentialEvaluation(
            energy=energy.item() + float(self.constant @ lam.detach().numpy()),
            forces=forces,
            virial=0.5 * (virial + virial.T),
            weight_gradient=gradient.numpy()[1:] + self.constant[1:],
        )
        require_finite(name, found)
        return found

    def magnetic_moments(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> np.ndarray:
        """Magnitudes (n_nodes,) of the site moments in μ_B, one per node of ``sites``.

        Nodes whose state has weight 0 keep the moment that they would have in the mixture.
        """
        name, sites = self.backend.name, self.sites
        positions, cell, weights = check_arguments(name, sites, positions, cell, weights)
        bonds, graph = self._graph_of(positions, cell, pbc)
        d = torch.as_tensor(bonds.vector, dtype=self.backend.torch_dtype)
        lam = torch.from_numpy(np.concatenate([[1.0], weights]))
        _, moments = self._nodes(d.to(self.backend.device), lam, graph)
        if moments is None:
            raise ModelError(f"model '{name}' has no layer that predicts magnetic moments")
        return moments.cpu().numpy().astype(np.float64)

    def _nodes(
        self, d: torch.Tensor, lam: torch.Tensor, g: _Graph
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Energy (eV, without reference) and moment (μ_B) of every node; chgnet's own forward.

        d: [B, 3] Å original bonds; lam: [1+k], λ_0 = 1.
        """
        model = self.backend.model
        weights = lam.to(d.dtype).to(d.device)
        omega = weights[g.edge_weight].unsqueeze(-1)  # [D, 1]
        length = torch.linalg.vector_norm(d, dim=1)
        radial = model.bond_basis_expansion.rbf_expansion_ag(length)  # [B, n_r]
        radial_short = model.bond_basis_expansion.rbf_expansion_bg(length)
        e = model.bond_embedding(radial)[g.bond_origin]  # [U, C]
        to_atoms = model.bond_weights_ag(radial)[g.bond_origin][g.edge_bond] * omega  # [D, C]
        to_bonds = model.bond_weights_bg(radial_short)[g.bond_origin]
        sending = g.edge_bond[g.short_edges]
        to_bonds = torch.cat([to_bonds, to_bonds[sending] * omega[g.short_edges]])
        n_bonds, n_angles = len(e), len(g.angles)
        if n_angles:
            unit = d / length.unsqueeze(-1)
            unit = torch.cat([unit, -unit.flip(0)])  # row −1 − b is bond b backwards
            with default_dtype(d.dtype):  # the angular basis makes its constant in it
                basis = model.angle_basis_expansion(*unit[g.angle_vectors.T])
            a = model.angle_embedding(basis)
            extended = g.angles.clone()
            extended[:, 2] = n_bonds + g.angle_source

        v = self.embedded
        own_bond = torch.arange(len(g.edges), device=d.device)
        moments = None
        for t, conv in enumerate(model.atom_conv_layers):
            v = conv(
                atom_feas=v,
                bond_feas=e[g.edge_bond],
                bond_weights=to_atoms,
                atom_graph=g.edges,
                directed2undirected=own_bond,
            )
            if t == len(model.atom_conv_layers) - 1:
                break
            if n_angles and model.bond_conv_layers[t] is not None:
                e = model.bond_conv_layers[t](
                    atom_feas=v,
                    bond_feas=torch.cat([e, e[sending]]),
                    bond_weights=to_bonds,
                    angle_feas=a,
                    bond_graph=extended,
                )[:n_bonds]
                if model.angle_layers[t] is not None:
                    a = model.angle_layers[t](
                        atom_feas=v, bond_feas=e, angle_feas=a, bond_graph=g.angles
                    )
            moments = torch.abs(model.site_wise(v)).view(-1)
        if model.readout_norm is not None:
            v = model.readout_norm(v)
        return model.mlp(v).view(-1), moments

    # --- the graph --------------------------------------------------------------------------

    def _graph_of(
        self, positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool]
    ) -> tuple[Bonds, _Graph]:
        backend = self.backend
        bonds = bonds_within(positions, cell, pbc, backend.cutoff)
        short = np.linalg.norm(bonds.vector, axis=1) < backend.angle_cutoff
        if self._graph is None or not self._graph.fits(bonds, short):
            self._require_neighbours(bonds)
            self._graph = self._build(bonds, short)
        return bonds, self._graph

    def _require_neighbours(self, bonds: Bonds) -> None:
        """CHGNet was trained on no atom without neighbours, and its own converter refuses them."""
        bonded = {*bonds.first.tolist(), *bonds.second.tolist()}
        lonely = set(self.sites.node_atom.tolist()) - bonded
        if lonely:
            raise ModelError(
                f"model '{self.backend.name}': atom {min(lonely)} has no neighbour within "
                f"{self.backend.cutoff:g} Å; CHGNet has no meaning for isolated atoms"
            )

    def _build(self, bonds: Bonds, short: np.ndarray) -> _Graph:
        n_bonds, n_nodes = len(short), self.sites.n_nodes
        # edge b: first atom receives; edge B + b: second receives
        receivers = np.concatenate([bonds.first, bonds.second])
        senders = np.concatenate([bonds.second, bonds.first])
        edges = self.sites.expand_edges(senders, receivers)
        bond = edges.origin % n_bonds if n_bonds else edges.origin
        forwards = edges.origin < n_bonds
        of_first = np.where(forwards, edges.receivers, edges.senders)
        of_second = np.where(forwards, edges.senders, edges.receivers)
        key = (bond * n_nodes + of_first) * n_nodes + of_second
        unique, edge_bond = np.unique(key, return_inverse=True)

        short_edges = np.flatnonzero(short[bond])
        one, two = _angles(edges.receivers[short_edges], edges.origin[short_edges])
        short_bond = edge_bond[short_edges]
        # CHGNet's vectors point from neighbour to centre; only the angle between them counts
        directed = np.where(forwards, bond, -1 - bond)[short_edges]
        return _Graph(
            bonds=bonds,
            short=short,
            edges=self._indices(np.stack([edges.receivers, edges.senders], axis=1)),
            edge_weight=self._indices(edges.weight),
            edge_bond=self._indices(edge_bond),
            bond_origin=self._indices(unique // n_nodes**2),
            short_edges=self._indices(short_edges),
            angles=self._indices(
                np.stack(
                    [edges.receivers[short_edges][one], short_bond[one], short_bond[two]], axis=1
                )
            ),
            angle_source=self._indices(two),
            angle_vectors=self._indices(np.stack([directed[one], directed[two]], axis=1)),
        )


def _angles(receivers: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs (A,), (A,) of edges (n,) into the same node that differ in their *origin*."""
    order = np.argsort(receivers, kind="stable")
    _, start, count = np.unique(receivers[order], return_index=True, return_counts=True)
    group = np.repeat(np.arange(len(start)), count)  # of each sorted position
    repeats = count[group]
    one = np.repeat(np.arange(len(order)), repeats)
    within = np.arange(len(one)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    one, two = order[one], order[start[group[one]] + within]
    different = origin[one] != origin[two]
    return one[different], two[different]
