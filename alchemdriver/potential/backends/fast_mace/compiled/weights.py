"""What the compiled evaluator reads of a frozen model: tables, matrices, lists of paths and terms.

Read off by asking the stock modules, and compared with them: a model with a part that does not
answer as expected is refused with :class:`NotCompiled`, and runs on :mod:`..network`.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import mace  # noqa: F401  must come before e3nn
import numpy as np
import scipy.linalg
import torch
from mace.modules import MACE
from mace.modules.irreps_tools import mask_head

from ....precision import default_dtype
from ..frozen import Frozen, Layer
from ..support import distance_only
from .tables import NotCompiled, RadialTable, make_table

__all__ = ["LayerWeights", "NotCompiled", "Readout", "Weights", "read_weights"]


@dataclass(frozen=True)
class Readout:
    """Energy Σ_h weights_h silu(x W)_h of the scalars x [C], or x · weights without a W."""

    hidden: torch.Tensor | None  # W [C, H]
    weights: np.ndarray  # [H] or [C], float64


@dataclass(frozen=True)
class LayerWeights:
    layer: Layer  # its up, skip and out are used as they are
    angular: torch.Tensor  # [M, Q] monomials of the unit vector -> every path's K Y
    paths: np.ndarray  # [paths, 8] as in loops.py, the last but one for a single receiver
    places: np.ndarray  # [paths] place of a path among those to the same l3
    radial: RadialTable
    density: RadialTable | None
    mix: dict[int, torch.Tensor]  # l3: [Z, paths·C, C'], or [1, …] where elements do not differ
    terms: np.ndarray  # [T, 4] of all polynomials: component of the result, a ≤ b ≤ c
    coefficients: np.ndarray  # [Z, T, C]
    readout: Readout | None


@dataclass(frozen=True)
class Weights:
    exponents: np.ndarray  # [M, 3] of the monomials
    table_of: np.ndarray  # [Z, Z] which radial table a pair of elements reads
    layers: tuple[LayerWeights, ...]


log = logging.getLogger(__name__)

_READ: WeakKeyDictionary[MACE, dict[tuple[tuple[int, ...], int], Weights]] = WeakKeyDictionary()


def read_weights(model: MACE, frozen: Frozen, head: int) -> Weights:
    """Weights of *frozen*, read off once for a model, its elements and a head.

    Raises NotCompiled for a part whose answers are not those of the formulas used here.
    """
    known = _READ.setdefault(model, {})
    if (frozen.numbers, head) not in known:
        known[frozen.numbers, head] = _read(model, frozen, head)
    return known[frozen.numbers, head]


def _read(model: MACE, frozen: Frozen, head: int) -> Weights:
    exponents, harmonics = _harmonics(model)
    double = copy.deepcopy(model).double()
    dtype, stop, n = frozen.embedding.dtype, float(model.r_max), len(frozen.numbers)
    pairs = [(0, 0)] if distance_only(model) else [(a, b) for a in range(n) for b in range(a, n)]
    table_of = np.zeros((n, n), np.int64)
    for t, (a, b) in enumerate(pairs):
        table_of[a, b] = table_of[b, a] = t
    ends = [frozen.attributes[list(pair)].double() for pair in pairs]
    layers = []
    for layer, block in zip(frozen.layers, double.interactions, strict=True):
        radial = [_RadialNetwork(double, block.conv_tp_weights, a, False) for a in ends]
        density = None
        if layer.density is not None:
            networks = [_RadialNetwork(double, block.density_fn, a, True) for a in ends]
            density = make_table(networks, stop, torch.float64)
        paths, places = _paths(layer)
        terms, coefficients = _terms(layer)
        layers.append(
            LayerWeights(
                layer,
                angular=harmonics.to(dtype) @ layer.coupling,
                paths=paths,
                places=places,
                radial=make_table(radial, stop, dtype),
                density=density,
                mix=_mix(layer),
                terms=terms,
                coefficients=coefficients,
                readout=None if layer.readout is None else _readout(layer, head),
            )
        )
    tables = [t for of in layers for t in (of.radial, of.density) if t is not None]
    log.info(
        "radial tables of %s intervals: largest errors %.0e of the value, %.0e of the slope",
        ", ".join(str(t.coefficients.shape[1]) for t in tables),
        max(t.value_error for t in tables),
        max(t.slope_error for t in tables),
    )
    return Weights(exponents, table_of, tuple(layers))


# --- edges ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RadialNetwork:
    """Weights [m, W] at lengths [m, 1] Å between two atoms of *attributes* [2, elements]."""

    model: MACE  # in float64
    network: torch.nn.Module
    attributes: torch.Tensor
    density: bool  # tanh of the square, mace's edge density

    def __call__(self, lengths: torch.Tensor) -> torch.Tensor:
        model = self.model
        ends = torch.tensor([[0], [1]]).expand(2, len(lengths))
        with default_dtype(torch.float64):
            basis, cutoff = model.radial_embedding(
                lengths, self.attributes, ends, model.atomic_numbers
            )
            value: torch.Tensor = self.network(basis)
        value = torch.tanh(value**2) if self.density else value
        return value if cutoff is None else value * cutoff


def _harmonics(model: MACE) -> tuple[np.ndarray, torch.Tensor]:
    """Exponents [M, 3]; harmonics as polynomials of the unit vector [M, lm], float64."""
    v = np.random.default_rng(0).normal(size=(200, 3))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    with default_dtype(torch.float64):
        y = copy.deepcopy(model.spherical_harmonics).double()(torch.from_numpy(v)).numpy()
    exponents: list[tuple[int, int, int]] = []
    blocks = []
    for degree in range(round(y.shape[1] ** 0.5)):
        mine = [(a, b, degree - a - b) for a in range(degree + 1) for b in range(degree + 1 - a)]
        monomials = np.stack([(v**e).prod(axis=1) for e in np.array(mine)], axis=1)
        part = y[:, degree**2 : (degree + 1) ** 2]
        blocks.append(np.linalg.lstsq(monomials, part, rcond=None)[0])
        blocks[-1][np.abs(blocks[-1]) < 1e-13] = 0.0
        if not np.abs(monomials @ blocks[-1] - part).max() < 1e-13:
            raise NotCompiled(f"its harmonics of degree {degree} are not those of a unit vector")
        exponents += mine
    return np.array(exponents), torch.from_numpy(scipy.linalg.block_diag(*blocks))


def _paths(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    before = 0
    base = {}
    for l3, count in layer.paths_to.items():
        base[l3] = before
        before += (2 * l3 + 1) * count
    rows = [
        [
            path.slot,
            path.l1,
            2 * path.l1 + 1,
            2 * path.l3 + 1,
            path.columns.start,
            1 - 2 * (path.l2 % 2),
            base[path.l3],
            layer.paths_to[path.l3],
        ]
        for path in layer.paths
    ]
    return np.array(rows), np.array([path.place for path in layer.paths])


# --- nodes ----------------------------------------------------------------------------------


def _mix(layer: Layer) -> dict[int, torch.Tensor]:
    """``down``, and with it ``select`` where there is one: both are linear."""
    if layer.select is None:
        return {l3: matrix.unsqueeze(0) for l3, matrix in layer.down.items()}
    return {l3: (matrix @ layer.select[l3]).contiguous() for l3, matrix in layer.down.items()}


def _terms(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    terms = []
    for p in layer.polynomials:
        terms.append(p.index.numpy().copy())
        terms[-1][:, 0] += p.degree**2
    coefficients = torch.cat([p.coefficients for p in layer.polynomials], dim=1)
    return np.concatenate(terms), coefficients.contiguous().numpy()


def _readout(layer: Layer, head: int) -> Readout:
    module: Any = layer.readout
    channels, dtype = layer.out[0].shape[1], layer.out[0].dtype
    width = sum((2 * degree + 1) * m.shape[1] for degree, m in layer.out.items())

    def answer(scalars: torch.Tensor) -> torch.Tensor:
        flat = torch.nn.functional.pad(scalars, (0, width - channels))
        energy: torch.Tensor = module(flat, torch.full((len(flat),), head))[:, head]
        return energy.double()

    kind = type(module).__name__
    if kind == "LinearReadoutBlock":
        found = Readout(None, answer(torch.eye(channels, dtype=dtype)).numpy())
    elif kind == "NonLinearReadoutBlock":
        found = _nonlinear(module, channels, width, dtype, head)
    else:
        raise NotCompiled(f"its readout is a {kind}")
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(8, channels))).to(dtype)
    if found.hidden is None:
        expected = x.double() @ torch.from_numpy(found.weights)
    else:
        hidden = torch.nn.functional.silu((x @ found.hidden).double())
        expected = hidden @ torch.from_numpy(found.weights)
    error = (answer(x) - expected).abs().max() / expected.abs().max()
    if not error < 100 * torch.finfo(dtype).eps:
        raise NotCompiled(f"its {kind} is not that of mace with SiLU")
    return found


def _nonlinear(module: Any, channels: int, width: int, dtype: torch.dtype, head: int) -> Readout:
    hidden = module.linear_1(torch.eye(channels, width, dtype=dtype))
    n_hidden = hidden.shape[1]
    point = torch.linspace(0.5, 2.0, n_hidden, dtype=dtype).unsqueeze(0)
    factor = (module.non_linearity(point) / torch.nn.functional.silu(point)).double()
    mask = torch.ones(1, n_hidden, dtype=dtype)
    if getattr(module, "num_heads", 1) > 1:
        mask = mask_head(mask, torch.tensor([head]), module.num_heads)
    weights = module.linear_2(torch.eye(n_hidden, dtype=dtype))[:, head].double()
    return Readout(hidden.contiguous(), (weights * mask[0].double() * factor[0]).numpy())
