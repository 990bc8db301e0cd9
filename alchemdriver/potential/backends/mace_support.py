"""Which MACE models run on the alchemical graph, and what is read off one of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mace  # must come before anything imports e3nn
import numpy as np
import torch
from ase.data import chemical_symbols
from mace.modules import MACE

from ...errors import ModelError, did_you_mean
from ..precision import default_dtype
from ..sites import AlchemicalSites

if TYPE_CHECKING:
    from .mace import MaceBackend

__all__ = [
    "features_of",
    "head_index",
    "of_head",
    "require_classes",
    "require_stock_energy",
    "require_supported",
]

log = logging.getLogger(__name__)

# What mace.data fills in where a configuration does not say.
_DEFAULT_FEATURES = {"total_charge": 0.0, "total_spin": 1.0}

# Exactly these classes: a subclass may do anything.
_MODELS = {"MACE", "ScaleShiftMACE"}
_INTERACTIONS = {
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
}
_NOT_ZERO_AT_CUTOFF = {
    "RealAgnosticResidualNonLinearInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
}
_READOUTS = {"LinearReadoutBlock", "NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"}
_RADIAL = {"BesselBasis", "GaussianBasis"}  # stock forces of ChebychevBasis fail their own FD test
_TRANSFORMS = {"AgnesiTransform", "SoftTransform"}


def require_supported(model: MACE, name: str) -> None:
    """Raise ModelError, by the name of the part, unless every part of *model* is a known one."""
    kind = type(model).__name__
    if kind not in _MODELS:
        raise ModelError(
            f"model '{name}' is a {kind}: alchemical weights are implemented for "
            f"{' and '.join(sorted(_MODELS))} energy models"
        )
    radial = model.radial_embedding
    parts = [
        ("radial basis", [radial.bessel_fn], _RADIAL),
        ("distance transform", [getattr(radial, "distance_transform", None)], _TRANSFORMS),
        ("interaction block", model.interactions, _INTERACTIONS),
        ("product block", model.products, {"EquivariantProductBasisBlock"}),
        ("readout", model.readouts, _READOUTS),
        ("pair repulsion", [getattr(model, "pair_repulsion_fn", None)], {"ZBLBasis"}),
        ("joint embedding", [getattr(model, "joint_embedding", None)], {"GenericJointEmbedding"}),
    ]
    for what, modules, known in parts:
        for module in modules:
            if module is not None and type(module).__name__ not in known:
                raise ModelError(
                    f"model '{name}': its {what} {type(module).__name__} is not supported; "
                    f"supported: {', '.join(sorted(known))}"
                )
    # a radial network with constants is not zero where its input is
    kinds = {type(block).__name__ for block in model.interactions}
    if getattr(radial, "apply_cutoff", True) and kinds & _NOT_ZERO_AT_CUTOFF:
        log.warning(
            "model '%s': its energy jumps where an atom crosses the cutoff (%s with apply_cutoff); "
            "dynamics will not conserve energy",
            name,
            ", ".join(sorted(kinds & _NOT_ZERO_AT_CUTOFF)),
        )
    for feature, spec in getattr(model, "embedding_specs", {}).items():
        if spec["per"] != "graph":
            raise ModelError(f"model '{name}': the per-atom feature '{feature}' is not supported")


def require_stock_energy(backend: MaceBackend) -> None:
    """Raise ModelError unless a pair of atoms has the energy that mace's own forward gives it.

    ``_node_energy`` repeats that forward; a later mace-torch may have changed it.
    """
    model, dtype, device = backend.model, backend.torch_dtype, backend.device
    z = (backend.numbers[0], backend.numbers[-1])
    symbols = [chemical_symbols[n] for n in z]
    positions = np.array([[0.0, 0.0, 0.0], [0.3, 0.4, 0.5 * backend.cutoff]])
    box, free = np.zeros((3, 3)), (False, False, False)
    pair = backend.reference(AlchemicalSites.plain(symbols))
    energy = pair.evaluate(positions, box, free, np.zeros(0)).energy
    data = {
        "positions": torch.as_tensor(positions, dtype=dtype, device=device),
        "cell": torch.as_tensor(box, dtype=dtype, device=device),
        "edge_index": torch.tensor([[0, 1], [1, 0]], device=device),
        "shifts": torch.zeros(2, 3, dtype=dtype, device=device),
        "unit_shifts": torch.zeros(2, 3, dtype=dtype, device=device),
        "node_attrs": pair.attrs,
        "batch": torch.zeros(2, dtype=torch.int64, device=device),
        "ptr": torch.tensor([0, 2], device=device),
        "head": torch.tensor([backend.head], device=device),
    }
    data |= {f: torch.tensor([v], dtype=dtype, device=device) for f, v in backend.features.items()}
    with default_dtype(dtype):
        expected = model(data, compute_force=False)["energy"].item()
    tolerance = {"float64": 1e-9, "float32": 1e-4}[backend.dtype] * max(1.0, abs(expected))
    if not abs(energy - expected) <= tolerance:
        raise ModelError(
            f"model '{backend.name}': a pair {'-'.join(symbols)} has {energy:.9g} eV here and "
            f"{expected:.9g} eV in mace-torch {mace.__version__}, which is not supported"
        )


def head_index(model: MACE, head: str | None, name: str) -> int:
    heads = list(getattr(model, "heads", ["Default"]))
    if head is not None:
        if head not in heads:
            raise ModelError(
                f"model '{name}' has no head '{head}'{did_you_mean(head, heads)}; "
                f"it has {', '.join(heads)}"
            )
        return heads.index(head)
    if len(heads) == 1:
        return 0
    default = [n for n, known in enumerate(heads) if known.lower() == "default"]
    if not default:
        raise ModelError(
            f"model '{name}' has several heads, choose one: {', '.join(heads)} (--head, the key "
            "'head', or head=… in Python)"
        )
    return default[0]


def of_head(values: torch.Tensor, head: int) -> float:
    """The number of *head* in a buffer that holds one per head, or one for all."""
    values = values.detach().reshape(-1)
    return float(values[head if len(values) > 1 else 0])


def require_classes(model: MACE, features: Mapping[str, float], name: str) -> None:
    """Raise ModelError for a feature of *features* that the joint embedding has no class for."""
    for feature, value in features.items():
        spec = model.embedding_specs[feature]
        if spec["type"] != "categorical":
            continue
        first = -int(spec.get("offset", 0))
        last = first + int(spec["num_classes"]) - 1
        if value != int(value) or not first <= value <= last:
            raise ModelError(
                f"model '{name}': {feature.replace('_', ' ')} is a whole number from {first} to "
                f"{last}, got {value:g}"
            )


def features_of(model: MACE, given: Mapping[str, float], name: str) -> dict[str, float]:
    """Every feature that the joint embedding of *model* takes, from *given* or mace's defaults."""
    specs = getattr(model, "embedding_specs", {}) if hasattr(model, "joint_embedding") else {}
    for feature in given:
        if feature not in specs:
            raise ModelError(
                f"model '{name}' takes no feature '{feature}'{did_you_mean(feature, specs)}"
            )
    values = {}
    for feature in specs:
        value = given.get(feature, _DEFAULT_FEATURES.get(feature))
        if value is None:
            raise ModelError(f"model '{name}' needs a value of its feature '{feature}'")
        values[feature] = float(value)
    return values
