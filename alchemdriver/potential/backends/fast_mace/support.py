"""For which models the re-associated evaluator is exact; every other one runs on stock modules."""

from __future__ import annotations

import mace  # noqa: F401  must come before e3nn
from e3nn import o3
from mace.modules import MACE
from mace.modules.blocks import EquivariantProductBasisBlock, InteractionBlock

__all__ = ["distance_only", "reason_against"]

# Exactly these: their edge weights depend on the distance (and, with a distance transform, on the
# two species), not on features of sender or receiver.
_INTERACTIONS = {
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
}
_HIGHEST_CORRELATION = 3


def distance_only(model: MACE) -> bool:
    """Whether edge features depend on the distance alone, so that messages may be collapsed."""
    return not hasattr(model.radial_embedding, "distance_transform")


def reason_against(model: MACE) -> str | None:
    """None, or why *model* must run on stock modules, in a few words."""
    if hasattr(model, "joint_embedding"):
        return "it has a joint embedding"
    for block, product in zip(model.interactions, model.products, strict=True):
        reason = _block(block) or _product(product)
        if reason:
            return reason
    return None


def _block(block: InteractionBlock) -> str | None:
    kind = type(block).__name__
    if kind not in _INTERACTIONS:
        return f"the edge weights of {kind} depend on features of sender and receiver"
    parts = (block.linear_up, block.linear, block.conv_tp, block.skip_tp)
    kinds = (o3.Linear, o3.Linear, o3.TensorProduct, o3.FullyConnectedTensorProduct)
    if any(type(part) is not known for part, known in zip(parts, kinds, strict=True)):
        return f"the layers of its {kind} are not e3nn's (cuEquivariance, openEquivariance?)"
    product = block.conv_tp
    irreps = {
        "features": block.node_feats_irreps,
        "edge irreps": block.edge_irreps,
        "harmonics": product.irreps_in2,
        "message": block.irreps_out,
    }
    for what, value in irreps.items():
        if not _one_of_each_degree(o3.Irreps(value)):
            return f"its {what} {value} repeat a degree"
    if len(product.irreps_in1) > len(block.linear_up.irreps_in):
        return f"its edge irreps {block.edge_irreps} have degrees that its features lack"
    if len({mul for mul, _ in product.irreps_in1}) != 1:
        return f"its edge irreps {block.edge_irreps} differ in multiplicity"
    if any(i.connection_mode != "uvu" or not i.has_weight for i in product.instructions):
        return "its convolution is not one weight for each path and channel"
    return None


def _product(product: EquivariantProductBasisBlock) -> str | None:
    if getattr(product, "use_agnostic_product", False):
        return "its products are agnostic of the element"
    contraction = product.symmetric_contractions
    if type(contraction).__name__ != "SymmetricContraction":
        return f"its {type(contraction).__name__} is not mace's SymmetricContraction"
    if max(c.correlation for c in contraction.contractions) > _HIGHEST_CORRELATION:
        return f"its correlation is above {_HIGHEST_CORRELATION}"
    if not _one_of_each_degree(contraction.irreps_out):
        return f"its features {contraction.irreps_out} repeat a degree"
    return None


def _one_of_each_degree(irreps: o3.Irreps) -> bool:
    """Degrees 0, 1, 2 … in this order, each once."""
    return [ir.l for _, ir in irreps] == list(range(len(irreps)))
