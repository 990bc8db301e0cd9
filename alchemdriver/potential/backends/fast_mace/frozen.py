"""A stock MACE model resolved into plain matrices, for the elements that a system has.

Every weight is read off by feeding unit vectors to the stock module, so that mace-torch's and
e3nn's own normalisations need not be repeated here.  Features are kept per degree l as
[nodes, 2l+1, channels].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import mace  # noqa: F401  must come before e3nn
import torch
from e3nn import o3
from mace.modules import MACE
from mace.modules.blocks import EquivariantProductBasisBlock, InteractionBlock
from mace.modules.symmetric_contraction import Contraction

from ...precision import default_dtype

__all__ = ["Frozen", "Layer", "Path", "Polynomial", "freeze"]


@dataclass(frozen=True)
class Path:
    """One coupling (l1 of the sender) × (l2 of the harmonics) → l3 of the message."""

    l1: int
    l2: int
    l3: int
    slot: int  # its place among the radial weights of an edge
    place: int  # among the paths to l3
    columns: slice  # of ``Layer.coupling``, (2l1+1)(2l3+1) of them


@dataclass(frozen=True)
class Polynomial:
    """The symmetric contraction to one degree l, weights of each element included.

    Σ_m t_(z,m) x_a x_b x_c for every component w of the output, element z and channel, with the D
    components of the input and a last one, x_D = 1, for lower orders.  Nearly all of the possible
    monomials are absent: for l = 0 and D = 16, 94 of 968 are there.
    """

    degree: int  # l
    width: int  # D
    index: torch.Tensor  # [M, 4] w, a ≤ b ≤ c of each monomial
    coefficients: torch.Tensor  # [Z, M, C]

    @cached_property
    def matrices(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same as T [Z, C, W·(D+1), N] on products x_b x_c, and the b and c [N] that occur.

        T_(w, a, bc) is symmetric in all three, so that with h_(w,a) = Σ T_(w,a,bc) x_b x_c the
        value is Σ_a x_a h_(w,a) and its gradient 3 h_(w,a).
        """
        w, *factors = self.index.T
        n_out, size = 2 * self.degree + 1, self.width + 1
        row, pair = [], []
        for place in range(3):
            a, b, c = factors[place], factors[(place + 1) % 3], factors[(place + 2) % 3]
            row.append(w * size + a)
            pair.append(torch.minimum(b, c) * size + torch.maximum(b, c))
        pairs, column = torch.unique(torch.cat(pair), return_inverse=True)
        place = torch.cat(row) * len(pairs) + column
        t = self.coefficients.repeat(1, 3, 1).transpose(1, 2) / 3.0  # [Z, C, 3M]
        flat = t.new_zeros(*t.shape[:2], n_out * size * len(pairs)).index_add(2, place, t)
        return flat.view(*t.shape[:2], n_out * size, -1), pairs // size, pairs % size


@dataclass(frozen=True)
class Layer:
    """One interaction with its product.  Matrices act from the right on the channels."""

    channels: int
    up: dict[int, torch.Tensor]  # l: [C_in, C]
    paths: tuple[Path, ...]
    paths_to: dict[int, int]  # l3: number of paths to it, ascending in l3
    coupling: torch.Tensor  # [lm, Q] harmonics -> for every path [2l1+1, 2l3+1]
    radial: torch.nn.Module  # stock: radial basis -> weights [slots · C]
    down: dict[int, torch.Tensor]  # l3: [paths to l3 · C, C_out]; with factors of the message
    density: torch.nn.Module | None  # stock: radial basis -> [1], before tanh of the square
    select: dict[int, torch.Tensor] | None  # l: [Z, C, C] on the message (no residual)
    skip: dict[int, torch.Tensor] | None  # l: [Z, C_in, C_out] from the old features (residual)
    polynomials: tuple[Polynomial, ...]
    out: dict[int, torch.Tensor]  # l: [C, C_out]
    readout: torch.nn.Module | None  # stock: flattened features -> energy of every head


@dataclass(frozen=True)
class Frozen:
    """A model for the elements ``numbers``, which all arrays by element follow."""

    numbers: tuple[int, ...]  # [Z]
    attributes: torch.Tensor  # [Z, elements of the model], one-hot
    embedding: torch.Tensor  # [Z, C]
    layers: tuple[Layer, ...]


def freeze(model: MACE, numbers: Sequence[int]) -> Frozen:
    """*model* for the elements *numbers*; it must have passed ``support.reason_against``."""
    known = [int(z) for z in model.atomic_numbers]
    rows = [known.index(z) for z in numbers]
    weight = model.node_embedding.linear.weight
    attributes = torch.eye(len(known), dtype=weight.dtype, device=weight.device)[rows]
    with default_dtype(weight.dtype):
        layers = []
        for n, (block, product) in enumerate(zip(model.interactions, model.products, strict=True)):
            last = n == len(model.interactions) - 1
            if len(model.readouts) == 1:
                readout = model.readouts[0] if last else None
            else:
                readout = model.readouts[n]
            layers.append(_layer(block, product, readout, attributes, rows))
        embedding = model.node_embedding(attributes)
    return Frozen(tuple(numbers), attributes, embedding, tuple(layers))


def _layer(
    block: InteractionBlock,
    product: EquivariantProductBasisBlock,
    readout: torch.nn.Module | None,
    attributes: torch.Tensor,
    rows: list[int],
) -> Layer:
    features_in = o3.Irreps(block.node_feats_irreps)
    middle = block.conv_tp.irreps_out
    target = o3.Irreps(block.irreps_out)
    residual = "Residual" in type(block).__name__
    paths, coupling, factors = _paths(block.conv_tp)
    down = _linear(block.linear, middle, target)
    channels = block.conv_tp.irreps_in1[0].mul
    density = getattr(block, "density_fn", None)
    average = 1.0 if density is not None else float(block.avg_num_neighbors)
    down = {
        l3: torch.cat(factors[l3]).repeat_interleave(channels).unsqueeze(1) * matrix / average
        for l3, matrix in down.items()
    }
    contractions = product.symmetric_contractions
    return Layer(
        channels=channels,
        up=_linear(block.linear_up, features_in, o3.Irreps(block.edge_irreps)),
        paths=paths,
        paths_to={l3: len(of_path) for l3, of_path in sorted(factors.items())},
        coupling=coupling,
        radial=block.conv_tp_weights,
        down=down,
        density=density,
        select=None if residual else _selected(block.skip_tp, attributes, target, target),
        skip=(
            _selected(block.skip_tp, attributes, features_in, o3.Irreps(block.hidden_irreps))
            if residual and product.use_sc
            else None
        ),
        polynomials=tuple(
            _polynomial(contraction, ir.l, rows)
            for contraction, (_, ir) in zip(
                contractions.contractions, contractions.irreps_out, strict=True
            )
        ),
        out=_linear(product.linear, product.linear.irreps_in, product.linear.irreps_out),
        readout=readout,
    )


# --- linear parts ---------------------------------------------------------------------------


def _unit_rows(irreps: o3.Irreps, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The m = first component of every channel of *irreps* as a unit vector; the l of each."""
    columns, degree = [], []
    for (mul, ir), part in zip(irreps, irreps.slices(), strict=True):
        columns += [part.start + c * ir.dim for c in range(mul)]
        degree += [ir.l] * mul
    units = torch.zeros(len(columns), irreps.dim, dtype=like.dtype, device=like.device)
    units[torch.arange(len(columns)), torch.tensor(columns)] = 1.0
    return units, torch.tensor(degree, device=like.device)


def _by_degree(
    out: torch.Tensor, degree: torch.Tensor, irreps: o3.Irreps
) -> dict[int, torch.Tensor]:
    """Answers *out* to unit vectors of *degree*, as {l: matrix [channels in, channels out]}."""
    return {
        ir.l: out[degree == ir.l][:, part].reshape(-1, mul, ir.dim)[:, :, 0].contiguous()
        for (mul, ir), part in zip(irreps, irreps.slices(), strict=True)
        if (degree == ir.l).any()
    }


def _linear(
    module: o3.Linear, irreps_in: o3.Irreps, irreps_out: o3.Irreps
) -> dict[int, torch.Tensor]:
    units, degree = _unit_rows(o3.Irreps(irreps_in), next(module.parameters()))
    return _by_degree(module(units), degree, o3.Irreps(irreps_out))


def _selected(
    module: o3.FullyConnectedTensorProduct,
    attributes: torch.Tensor,
    irreps_in: o3.Irreps,
    irreps_out: o3.Irreps,
) -> dict[int, torch.Tensor]:
    """A tensor product with the one-hot element as {l: [Z, channels in, channels out]}."""
    units, degree = _unit_rows(irreps_in, attributes)
    of_element = [
        _by_degree(module(units, row.expand(len(units), -1)), degree, irreps_out)
        for row in attributes
    ]
    return {n: torch.stack([matrices[n] for matrices in of_element]) for n in of_element[0]}


# --- convolution ----------------------------------------------------------------------------


def _paths(
    product: o3.TensorProduct,
) -> tuple[tuple[Path, ...], torch.Tensor, dict[int, list[torch.Tensor]]]:
    """Paths of a tensor product, ``Layer.coupling``, and for every l3 a factor [1] of each path.

    A path from scalars couples by a number, which goes into the matrix after it.
    """
    in1, in2, out = product.irreps_in1, product.irreps_in2, product.irreps_out
    paths, blocks, n_columns = [], [], 0
    factors: dict[int, list[torch.Tensor]] = {ell: [] for ell in sorted({ir.l for _, ir in out})}
    by_place = sorted(enumerate(product.instructions), key=lambda item: item[1].i_out)
    for slot, i in by_place:
        l1, l2, l3 = in1[i.i_in1].ir.l, in2[i.i_in2].ir.l, out[i.i_out].ir.l
        coupling = _coupling(product, slot)
        factor = coupling.new_ones(1)
        if l1 == 0:
            factor, coupling = coupling[0, :1], torch.eye(2 * l2 + 1).to(coupling)
        columns = slice(n_columns, n_columns + coupling.shape[1])
        n_columns = columns.stop
        paths.append(Path(l1, l2, l3, slot, len(factors[l3]), columns))
        blocks.append(coupling.new_zeros(in2.dim, coupling.shape[1]))
        blocks[-1][l2**2 : (l2 + 1) ** 2] = coupling
        factors[l3].append(factor)
    return tuple(paths), torch.cat(blocks, dim=1), factors


def _coupling(product: o3.TensorProduct, slot: int) -> torch.Tensor:
    """What one path makes of unit vectors in its first channel: [2l2+1, (2l1+1)(2l3+1)]."""
    i = product.instructions[slot]
    in1, in2 = product.irreps_in1, product.irreps_in2
    d1, d2 = in1[i.i_in1].ir.dim, in2[i.i_in2].ir.dim
    d3 = product.irreps_out[i.i_out].ir.dim
    new = partial(torch.zeros, dtype=torch.get_default_dtype(), device=product.output_mask.device)
    x, y, w = new(d1 * d2, in1.dim), new(d1 * d2, in2.dim), new(d1 * d2, product.weight_numel)
    for row, (b, a) in enumerate(itertools.product(range(d2), range(d1))):
        x[row, in1.slices()[i.i_in1].start + a] = 1.0
        y[row, in2.slices()[i.i_in2].start + b] = 1.0
    channels = in1[i.i_in1].mul
    w[:, slot * channels] = 1.0
    answer: torch.Tensor = product(x, y, w)[:, product.irreps_out.slices()[i.i_out]]
    return answer[:, :d3].reshape(d2, d1 * d3).contiguous()


# --- contraction ----------------------------------------------------------------------------


def _polynomial(contraction: Contraction, degree: int, rows: list[int]) -> Polynomial:
    """U and the weights of the elements *rows* contracted to monomials, in float64."""
    order = contraction.correlation
    weights = {order: contraction.weights_max}
    weights |= {order - 1 - n: w for n, w in enumerate(contraction.weights)}
    width = contraction.U_tensors(1).shape[-2]
    dtype = contraction.weights_max.dtype
    index, coefficients = [], []
    for n in range(1, order + 1):
        u = contraction.U_tensors(n).double()
        if u.dim() == n + 1:
            u = u.unsqueeze(0)  # [W, D, …, k]: mace drops the component of a scalar
        t = torch.einsum("w...k,zkc->w...zc", u, weights[n][rows].double())
        entry = t.abs().amax(dim=(-2, -1)).nonzero()  # [E, 1+n]
        factors = torch.sort(entry[:, 1:], dim=1).values
        entry_of = torch.cat([entry[:, :1], factors], dim=1)
        monomial, place = torch.unique(entry_of, dim=0, return_inverse=True)
        summed = t.new_zeros(len(monomial), *t.shape[-2:])
        summed = summed.index_add(0, place, t[tuple(entry.T)])
        # what is this much smaller than the largest is the rounding of a zero
        used = summed.abs().amax(dim=(-2, -1)) > 4.0 * torch.finfo(dtype).eps * summed.abs().max()
        coefficients.append(summed[used])
        index.append(torch.nn.functional.pad(monomial[used], (0, 3 - n), value=width))
    of_element = torch.cat(coefficients).transpose(0, 1).to(dtype)
    return Polynomial(degree, width, torch.cat(index), of_element.contiguous())
