"""MACE as an alchemical potential, on the unmodified modules of mace-torch.

The oracle of :mod:`.fast_mace`, and what runs where that one is not exact.

Symbols of the paper's Methods and names here:

| paper                  | here                                                              |
|------------------------|-------------------------------------------------------------------|
| ω of eq. 6 and 14b     | ``omega``: goes into the ``cutoff`` argument of every interaction |
| R_t of eq. 15b         | ``model.readouts[t]``                                             |
| E = Σ λ_α E_(i,α), 15b | ``energy`` in :meth:`MacePotential.evaluate`                      |

Why ``cutoff``: every interaction block multiplies its radial weights and, where it has one, its
edge density by that argument.  Weighting the spherical harmonics instead leaves the densities of
the Density and NonLinear blocks unweighted, and the removed atom is still counted.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import mace  # noqa: F401  must come before anything imports e3nn
import numpy as np
import torch
from ase.data import chemical_symbols
from mace.modules import MACE
from numpy.typing import ArrayLike

from ...contract import shelf
from ...contract.families import EVALUATORS
from ...errors import InputError, ModelError, did_you_mean
from ...records import PotentialEvaluation
from ..modelfile import load_model, load_pickle
from ..precision import default_dtype, require_device, torch_dtype
from ..sites import AlchemicalSites
from .base import (
    Arguments,
    Backend,
    Potential,
    check_arguments,
    require_elements,
    require_finite,
)
from .cueq import converted
from .fast_mace import FastMacePotential, reason_against
from .mace_support import (
    features_of,
    head_index,
    of_head,
    require_classes,
    require_stock_energy,
    require_supported,
)
from .neighbours import directed_edges, sum_rows

__all__ = ["MaceBackend", "MacePotential", "open_embedded", "open_pickle"]

log = logging.getLogger(__name__)


class MaceBackend(Backend):
    """A MACE energy model, frozen, on *device* in *dtype*.

    Arguments
        model: a ``mace.modules.MACE`` or ``ScaleShiftMACE``; it is copied, not changed.
        name: what messages call it.
        device: torch device, such as 'cpu' or 'cuda:0'.
        dtype: 'float64' or 'float32'.  Isolated-atom energies stay in float64 either way.
        head: name of the head of a multi-head model.  By default the only one, or 'Default'.
        features: values of the model's joint embedding that hold in every state, such as
            ``{"total_charge": 0, "total_spin": 1}``.
        evaluator: 'fast' (:mod:`.fast_mace`), 'stock' (this module), 'cueq'
            (this module on cuEquivariance's layers), or 'auto': fast where it is exact; on a GPU,
            what :meth:`keep_the_faster` finds.  The attribute ``evaluator`` says which it became.

    Raises ModelError for a model, or an option of one, whose exact limits are not established, for
    a head or feature that the model does not have or that must be chosen, for 'fast' where it is
    not exact, and for 'cueq' where it is not installed or does not know the model.
    """

    def __init__(
        self,
        model: MACE,
        name: str,
        device: str = "cpu",
        dtype: str = "float64",
        head: str | None = None,
        features: Mapping[str, float] | None = None,
        evaluator: str = "auto",
    ):
        self.torch_dtype = torch_dtype(dtype)
        require_supported(model, name)
        self.name = name
        self.dtype = dtype
        self.device = torch.device(device)
        self.device_type = self.device.type
        self.numbers = tuple(int(z) for z in model.atomic_numbers)
        self.elements = frozenset(chemical_symbols[z] for z in self.numbers)
        self.cutoff = float(model.r_max)
        self.head = head_index(model, head, name)
        # before the conversion: float32 would cost all-electron energies 0.6 eV
        energies = model.atomic_energies_fn.atomic_energies.detach().to("cpu", torch.float64)
        of_heads = energies.reshape(-1, energies.shape[-1])
        self.atomic_energies = of_heads[self.head].numpy()  # [elements] eV
        self.model = copy.deepcopy(model).to(device=self.device, dtype=self.torch_dtype).eval()
        self.model.requires_grad_(False)
        self.features = features_of(self.model, features or {}, name)
        self.scale, self.shift = 1.0, 0.0
        if hasattr(model, "scale_shift"):
            self.scale = of_head(model.scale_shift.scale, self.head)
            self.shift = of_head(model.scale_shift.shift, self.head)
        require_stock_energy(self)
        self.demanded = evaluator
        self.evaluator = self._choose(evaluator)

    def __repr__(self) -> str:
        return f"MaceBackend({self.name}, {self.device}, {self.dtype})"

    def species(self, sites: AlchemicalSites) -> np.ndarray:
        """Index among ``numbers`` of every node [n]."""
        index = {z: n for n, z in enumerate(self.numbers)}
        return np.array([index[z] for z in sites.node_number.tolist()], dtype=np.int64)

    def node_constants(self, sites: AlchemicalSites) -> np.ndarray:
        """E0 + shift of every node [n], eV."""
        constants: np.ndarray = self.atomic_energies[self.species(sites)] + self.shift
        return constants

    def constant_energies(self, sites: AlchemicalSites) -> np.ndarray:
        """Σ (E0 + shift) of the nodes of each α [1+k], eV: the part of E that is linear in λ."""
        constant = np.zeros(sites.n_weights + 1)
        np.add.at(constant, sites.node_weight, self.node_constants(sites))
        return constant

    def potential(
        self,
        sites: AlchemicalSites,
        state_features: Sequence[Mapping[str, float]] | None = None,
    ) -> Potential:
        """The potential of *sites*.

        state_features: for models with a joint embedding, what each state (k of them) has
        differently from ``features``; only the states of one group may differ.
        """
        require_elements(self.name, self.elements, sites)
        if self.evaluator == "fast" and sites.n_nodes and not state_features:
            return FastMacePotential(self, sites)
        model = self.on_cueq if self.evaluator == "cueq" else self.model
        return MacePotential(self, sites, state_features, model)

    def of_charge(self, charge: float | None, spin: float | None) -> MaceBackend:
        """See ``Backend``; of models with a joint embedding of the total charge or spin."""
        given = {"total_charge": charge, "total_spin": spin}
        takes = self.features.keys() & given.keys()
        rest = [None if feature in takes else value for feature, value in given.items()]
        shelf.require_neutral(self.name, *rest)
        new = {f: float(v) for f, v in given.items() if f in takes and v is not None}
        require_classes(self.model, new, self.name)
        if new.items() <= self.features.items():
            return self
        charged = copy.copy(self)
        charged.features = {**self.features, **new}
        return charged

    @cached_property
    def on_cueq(self) -> MACE:
        """The model on cuEquivariance's layers; ModelError where that is not possible."""
        return converted(self.model, self.name, self.device)

    def reference(self, sites: AlchemicalSites) -> MacePotential:
        """See ``Backend``; on mace-torch's own modules."""
        require_elements(self.name, self.elements, sites)
        return MacePotential(self, sites)

    def fall_back(self, reason: str) -> None:
        """Use stock modules from now on, with a warning; ModelError if another one was demanded."""
        if self.demanded == self.evaluator:
            raise ModelError(
                f"model '{self.name}': the {self.evaluator} evaluator is off: {reason}; "
                "use evaluator stock"
            )
        log.warning("model %s: evaluated on stock modules: %s", self.name, reason)
        self.evaluator = "stock"

    def choose_evaluator(self, sites: AlchemicalSites, arguments: Arguments) -> None:
        """See ``Backend``; 'auto' has a choice on a GPU only."""
        if self.demanded == "auto" and self.device_type == "cuda":
            self.keep_the_faster(sites, arguments)

    def keep_the_faster(
        self, sites: AlchemicalSites, arguments: Arguments, rounds: int = 3
    ) -> None:
        """Time what 'auto' is on a CPU and cuEquivariance; keep one.

        Which of the two wins depends on the GPU, on the
        model and on the number of atoms.  The first evaluation of each, which warms up, does not
        count.
        """
        seconds: dict[str, float] = {}
        for name in (self._choose("auto"), "cueq"):
            self.evaluator = name
            try:
                potential = self.potential(sites)
                times = []
                for _ in range(rounds + 1):
                    start = time.perf_counter()
                    potential.evaluate(*arguments)  # ends on the CPU: nothing is left to wait for
                    times.append(time.perf_counter() - start)
                seconds[name] = min(times[1:])
            except Exception as err:
                if not seconds:
                    raise
                # whatever layers that were not made for this model or GPU raise
                log.info("model %s: not on cuEquivariance: %s", self.name, err)
        self.evaluator = min(seconds, key=lambda name: seconds[name])
        found = ", ".join(f"{name} {1e3 * t:.1f} ms" for name, t in seconds.items())
        log.info("model %s: %s evaluator on this system (%s)", self.name, self.evaluator, found)

    def _choose(self, wanted: str) -> str:
        if wanted not in EVALUATORS:
            raise InputError(
                f"evaluator: expected {', '.join(EVALUATORS)}, got '{wanted}'"
                f"{did_you_mean(wanted, EVALUATORS)}"
            )
        if wanted == "stock":
            log.info("model %s: evaluated on stock modules, as asked", self.name)
            return "stock"
        if wanted == "cueq":
            _ = self.on_cueq
            log.info("model %s: evaluated on cuEquivariance, as asked", self.name)
            return "cueq"
        reason = reason_against(self.model)
        if reason is None and self.device.type not in ("cpu", "cuda"):
            reason = f"its device {self.device} has no float64"
        if reason is None:
            log.info("model %s: fast evaluator, exact for its blocks", self.name)
            return "fast"
        if wanted == "fast":
            raise ModelError(
                f"model '{self.name}' cannot use the fast evaluator: {reason}; use evaluator auto"
            )
        log.info("model %s: evaluated on stock modules: %s", self.name, reason)
        return "stock"


def open_embedded(
    name: str, path: Path, device: str, dtype: str, evaluator: str, head: str | None = None
) -> MaceBackend:
    """The model of the embedded format in the JSON file *path*."""
    require_device(device, dtype)
    # the backend converts: isolated-atom energies must reach it in the precision of the file
    model, _ = load_model(path)
    return MaceBackend(model, name, device, dtype, head, evaluator=evaluator)


def open_pickle(
    name: str, path: Path, device: str, dtype: str, evaluator: str, head: str | None = None
) -> MaceBackend:
    """The model in the ``.model`` file *path*.  Runs the code in the pickle."""
    require_device(device, dtype)
    return MaceBackend(load_pickle(path), name, device, dtype, head, evaluator=evaluator)


class MacePotential(Potential):
    """E(x, cell, λ) of one set of sites; made by :meth:`MaceBackend.potential`."""

    def __init__(
        self,
        backend: MaceBackend,
        sites: AlchemicalSites,
        state_features: Sequence[Mapping[str, float]] | None = None,
        model: MACE | None = None,
    ):
        """model: modules to run instead of the backend's, with the same weights."""
        self.backend = backend
        self.model = backend.model if model is None else model
        self.sites = sites
        species = self._tensor(backend.species(sites), torch.int64)
        n_elements = len(backend.numbers)
        self.attrs = torch.nn.functional.one_hot(species, n_elements).to(backend.torch_dtype)
        self.embedded = self.model.node_embedding(self.attrs)  # [n, C]
        self.node_weight = torch.from_numpy(sites.node_weight.copy())  # λ lives on the CPU
        self.heads = torch.full_like(species, backend.head)
        # ZBL adds up per receiver; see _pair_energy
        self.attrs_of_each_weight = self.attrs.repeat(sites.n_weights + 1, 1)
        self.joint = self._joint_embeddings(state_features)
        self.constant = backend.constant_energies(sites)  # [1+k] eV

    def _tensor(self, values: ArrayLike, dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(values, dtype=dtype, device=self.backend.device)

    # --- evaluation -------------------------------------------------------------------------

    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> PotentialEvaluation:
        """See ``Potential``.

        The leaves of the backward pass are the edge vectors d and λ.  With g = ∂E/∂d,
        F_i = Σ_(i→j) g − Σ_(j→i) g and virial = −Σ d ⊗ g, summed in float64.
        """
        sites = self.sites
        positions, cell, weights = check_arguments(
            self.backend.name, sites, positions, cell, weights
        )
        senders, receivers, vectors = directed_edges(positions, cell, pbc, self.backend.cutoff)
        edges = sites.expand_edges(senders, receivers)
        vectors = vectors[edges.origin]

        d = self._tensor(vectors, self.backend.torch_dtype).requires_grad_()
        # λ in float64 on the CPU, whatever the model runs in and on
        lam = torch.from_numpy(np.concatenate([[1.0], weights])).requires_grad_()
        edge_index = self._tensor(np.stack([edges.senders, edges.receivers]), torch.int64)
        edge_weight = self._tensor(edges.weight, torch.int64)
        if sites.n_nodes:
            node_energy = self._node_energy(d, lam, edge_index, edge_weight)  # [n]
            node_energy = node_energy.cpu().double()
            energy = (lam[self.node_weight] * node_energy).sum()  # eq. 7
        else:
            node_energy = lam[:0]
            energy = lam.sum() * 0.0
        to_d, gradient = torch.autograd.grad(energy, [d, lam], materialize_grads=True)

        slope = to_d.cpu().numpy().astype(np.float64)  # [E', 3] eV/Å
        atom = sites.node_atom
        forces = sum_rows(slope, atom[edges.senders], sites.n_atoms)
        forces -= sum_rows(slope, atom[edges.receivers], sites.n_atoms)
        virial = -vectors.T @ slope
        found = PotentialEvaluation(
            energy=energy.item() + float(self.constant @ lam.detach().numpy()),
            forces=forces,
            virial=0.5 * (virial + virial.T),
            weight_gradient=gradient.numpy()[1:] + self.constant[1:],
            node_energies=node_energy.detach().numpy() + self.backend.node_constants(sites),
        )
        require_finite(self.backend.name, found)
        return found

    def _node_energy(
        self,
        d: torch.Tensor,
        lam: torch.Tensor,
        edge_index: torch.Tensor,
        edge_weight: torch.Tensor,
    ) -> torch.Tensor:
        """R(h_(i,α)) of every node [n], eV, without E0 and shift; mace's own forward, eq. 6, 14b.

        d: [E', 3] Å from sender to receiver; lam: [1+k], λ_0 = 1; edge_index: [2, E'];
        edge_weight: [E'] α of ω.
        """
        model, attrs, heads = self.model, self.attrs, self.heads
        weights = lam.to(d.dtype).to(d.device)
        lengths = torch.linalg.vector_norm(d, dim=-1, keepdim=True)  # [E', 1]
        harmonics = model.spherical_harmonics(d)
        radial, cutoff = model.radial_embedding(lengths, attrs, edge_index, model.atomic_numbers)
        if len(weights) > 1:
            omega = weights[edge_weight].unsqueeze(-1)  # [E', 1]
            cutoff = omega if cutoff is None else cutoff * omega

        h = self.embedded
        outside = None  # energy that stock adds after scale and shift
        if self.joint is not None:
            h = h + _mixed_embedding(*self.joint, weights)
            if hasattr(model, "embedding_readout"):
                outside = model.embedding_readout(h, heads)[:, self.backend.head]
        features = []
        for i, (interaction, product) in enumerate(
            zip(model.interactions, model.products, strict=True)
        ):
            messages, skip = interaction(
                node_attrs=attrs,
                node_feats=h,
                edge_attrs=harmonics,
                edge_feats=radial,
                edge_index=edge_index,
                cutoff=cutoff,
                first_layer=(i == 0),
            )
            h = product(node_feats=messages, sc=skip, node_attrs=attrs)
            features.append(h)
        if len(model.readouts) == 1:
            features = features[-1:]
        energy = torch.zeros_like(h[:, 0])
        for readout, h in zip(model.readouts, features, strict=True):
            energy = energy + readout(h, heads)[:, self.backend.head]
        if hasattr(model, "pair_repulsion"):
            energy = energy + self._pair_energy(lengths, weights, edge_index, edge_weight)
        energy = energy * self.backend.scale
        return energy if outside is None else energy + outside

    def _pair_energy(
        self,
        lengths: torch.Tensor,
        weights: torch.Tensor,
        edge_index: torch.Tensor,
        edge_weight: torch.Tensor,
    ) -> torch.Tensor:
        """ZBL energy of every node [n], its edges weighted by ω.

        mace's module sums over the edges of a receiver by itself.  It is linear in them, so each
        receiver gets one slot per weight index, and the slots are weighted afterwards.
        """
        model, n = self.model, len(self.attrs)
        slots = torch.stack([edge_index[0], edge_index[1] + n * edge_weight])
        with default_dtype(lengths.dtype):  # products of numbers and integer tensors take it
            energy: torch.Tensor = model.pair_repulsion_fn(
                lengths, self.attrs_of_each_weight, slots, model.atomic_numbers
            )
        return weights @ energy.view(len(weights), n)

    # --- joint embedding --------------------------------------------------------------------

    def _joint_embeddings(
        self, state_features: Sequence[Mapping[str, float]] | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Embeddings [1+k, C] of the common features and of each state's; the row of every node.

        Row 0 is for the nodes that see the mixture: ordinary atoms, and sites of groups whose
        states do not differ.  None for a model without joint embedding.
        """
        backend, sites = self.backend, self.sites
        own = [{} for _ in sites.states] if state_features is None else list(state_features)
        if len(own) != sites.n_weights:
            raise InputError(
                f"state_features: expected one per state ({sites.n_weights}), got {len(own)}"
            )
        if not hasattr(self.model, "joint_embedding"):
            if any(own):
                raise ModelError(f"model '{backend.name}' takes no features such as {own}")
            return None
        values = [backend.features]
        values += [features_of(backend.model, {**backend.features, **f}, backend.name) for f in own]
        differing = {g for g, v in zip(sites.groups, values[1:], strict=True) if v != values[0]}
        if len(differing) > 1:
            raise InputError(
                "state_features: only the states of one group may differ from the common "
                "features, or the features of a combination of states are not defined"
            )
        named = {f: self._tensor([v[f] for v in values], backend.torch_dtype) for f in values[0]}
        rows = torch.arange(len(values), device=backend.device)
        of_weight = [0, *(a + 1 if g in differing else 0 for a, g in enumerate(sites.groups))]
        row = self._tensor(of_weight, torch.int64)[self.node_weight.to(backend.device)]
        return self.model.joint_embedding(rows, named), row


def _mixed_embedding(e: torch.Tensor, row: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Embedding [n, C] to add to every node: e_α to nodes of a state α that has its own.

    The others get e_0 + Σ λ_α (e_α − e_0), e_0 of the common features: that is e_α where one
    weight of the group is 1, and e_0 for any weights if no state differs.
    """
    mixed = e[0] + weights[1:] @ (e[1:] - e[0])
    return torch.cat([mixed.unsqueeze(0), e[1:]])[row]
