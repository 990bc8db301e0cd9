"""Small MACE models with random weights, of every block and option, and stock MACE to compare with.

Stock means mace's own ``forward`` on a batch built by ``mace.data``; none of our code is in it.
"""

from __future__ import annotations

from functools import lru_cache

import mace  # noqa: F401  must come before e3nn
import numpy as np
import torch
from ase.data import atomic_numbers
from e3nn import o3
from mace import data, modules
from mace.modules.blocks import NonLinearBiasReadoutBlock
from mace.tools import AtomicNumberTable, torch_geometric

from alchemdriver.potential.backends.mace import MaceBackend
from alchemdriver.records import PotentialEvaluation, Structure

ELEMENTS = ("O", "Na", "Cl", "K", "Rb")
BLOCKS = {
    "Interaction": modules.RealAgnosticInteractionBlock,
    "Residual": modules.RealAgnosticResidualInteractionBlock,
    "Density": modules.RealAgnosticDensityInteractionBlock,
    "DensityResidual": modules.RealAgnosticDensityResidualInteractionBlock,
    "NonLinear": modules.RealAgnosticResidualNonLinearInteractionBlock,
    "Attention": modules.RealAgnosticAttResidualInteractionBlock,
}
CHARGE_AND_SPIN = {
    "total_charge": {
        "type": "categorical",
        "per": "graph",
        "num_classes": 9,
        "offset": 4,
        "emb_dim": 6,
    },
    "total_spin": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 6},
}


def make_model(
    first: str,
    later: str,
    *,
    L: int = 1,
    max_ell: int = 2,
    channels: int = 4,
    r_max: float = 4.241,  # Å, in a gap of 0.13 Å between the distances of salt()
    correlation: int = 2,
    layers: int = 2,
    heads: tuple[str, ...] = ("Default",),
    plain: bool = False,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **options,
) -> torch.nn.Module:
    """A random-weight model, made so that every term matters.

    mace starts some parameters at values that hide errors (equal E0s, embeddings near zero); they
    are set to random ones here.  plain: ``MACE`` instead of ``ScaleShiftMACE``.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        n_heads = len(heads)
        rng = np.random.default_rng(seed)
        e0 = rng.normal(-2.0, 1.0, size=(n_heads, len(ELEMENTS)))
        arguments = {
            "r_max": r_max,
            "num_bessel": 5,
            "num_polynomial_cutoff": 5,
            "max_ell": max_ell,
            "interaction_cls_first": BLOCKS[first],
            "interaction_cls": BLOCKS[later],
            "num_interactions": layers,
            "num_elements": len(ELEMENTS),
            "hidden_irreps": o3.Irreps.spherical_harmonics(L) * channels,
            "MLP_irreps": o3.Irreps("4x0e"),
            "atomic_energies": e0,
            "avg_num_neighbors": 0.4,
            "atomic_numbers": [atomic_numbers[s] for s in ELEMENTS],
            "correlation": correlation,
            "gate": torch.nn.functional.silu,
            "radial_MLP": [12, 12],
            "heads": list(heads),
            **options,
        }
        arguments["hidden_irreps"] = arguments["hidden_irreps"].sort()[0].simplify()
        if arguments.pop("bias_readout", False):
            arguments["readout_cls"] = NonLinearBiasReadoutBlock
        if plain:
            model = modules.MACE(**arguments)
        else:
            scale, shift = rng.uniform(0.7, 1.5, n_heads), rng.normal(0.0, 0.3, n_heads)
            model = modules.ScaleShiftMACE(
                atomic_inter_scale=scale if n_heads > 1 else float(scale[0]),
                atomic_inter_shift=shift if n_heads > 1 else float(shift[0]),
                **arguments,
            )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "source_embedding" in name or "target_embedding" in name:
                    parameter.normal_()
                elif name.endswith(("alpha", "beta")):
                    parameter.fill_(1.5)
        return model.eval().requires_grad_(False)  # stock's in-place `+=` of embeddings needs it
    finally:
        torch.random.set_rng_state(state)
        torch.set_default_dtype(before)


def stock(
    model: torch.nn.Module,
    structure: Structure,
    symbols: tuple[str | None, ...] | None = None,
    head: str = "Default",
    features: dict | None = None,
) -> PotentialEvaluation:
    """Stock MACE on *structure* with its atoms being *symbols*; None leaves the atom out.

    Rows of removed atoms are zero.  There is no weight gradient.
    """
    symbols = structure.symbols if symbols is None else symbols
    kept = [i for i, s in enumerate(symbols) if s is not None]
    before = torch.get_default_dtype()
    dtype = next(model.parameters()).dtype
    torch.set_default_dtype(dtype)
    try:
        configuration = data.Configuration(
            atomic_numbers=np.array([atomic_numbers[symbols[i]] for i in kept]),
            positions=structure.positions[kept].copy(),
            properties={"total_charge": 0.0, "total_spin": 1.0, **(features or {})},
            property_weights={},
            cell=structure.cell.copy(),
            pbc=tuple(bool(p) for p in structure.pbc),
            head=head,
        )
        table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
        item = data.AtomicData.from_config(
            configuration, z_table=table, cutoff=float(model.r_max), heads=list(model.heads)
        )
        loader = torch_geometric.dataloader.DataLoader([item], batch_size=1)
        out = model(next(iter(loader)).to_dict(), compute_force=True, compute_virials=True)
    finally:
        torch.set_default_dtype(before)
    forces = np.zeros((len(symbols), 3))
    forces[kept] = out["forces"].detach().numpy()
    return PotentialEvaluation(
        energy=out["energy"].item(),
        forces=forces,
        virial=out["virials"][0].detach().numpy().astype(float),
        weight_gradient=np.zeros(0),
    )


def salt(seed: int = 0) -> Structure:
    """Eight atoms of rock salt, displaced and sheared: no symmetry hides an error."""
    rng = np.random.default_rng(seed)
    fractional = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2.0
    fractional = np.concatenate([fractional, fractional + np.array([0.5, 0.0, 0.0])])
    cell = 5.4 * np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3))
    positions = fractional @ cell + rng.uniform(-0.15, 0.15, (8, 3))
    return Structure(("Na",) * 4 + ("Cl",) * 4, positions, cell)


def model_of(first, later, **options):
    return {"first": first, "later": later, **options}


AGNESI = {"distance_transform": "Agnesi", "pair_repulsion": True}
SOFT = {"distance_transform": "Soft", "radial_type": "gaussian"}
SHARP = {"apply_cutoff": False}  # the cutoff multiplies the message, not the radial basis
EMBEDDED = {"embedding_specs": CHARGE_AND_SPIN}
LAST = {"use_agnostic_product": True, "use_last_readout_only": True}

# A covering design: every block, as first layer where it can be one, and every option.
ZOO = {
    "Interaction+Residual, L=0, correlation 3": model_of(
        "Interaction", "Residual", L=0, correlation=3
    ),
    "Residual+Residual, L=2": model_of("Residual", "Residual", L=2, channels=3),
    "Residual+Residual, L=3": model_of("Residual", "Residual", L=3, max_ell=3, channels=2),
    "Interaction+Interaction, sharp": model_of("Interaction", "Interaction", **SHARP),
    "Residual+Residual, Agnesi, ZBL": model_of("Residual", "Residual", **AGNESI),
    "Density+DensityResidual, Agnesi, ZBL": model_of("Density", "DensityResidual", **AGNESI),
    "DensityResidual, L=0, sharp": model_of("DensityResidual", "DensityResidual", L=0, **SHARP),
    "Density+Density, Soft, gaussian": model_of("Density", "Density", **SOFT),
    "NonLinear, Agnesi, ZBL, bias readout, sharp": model_of(
        "NonLinear", "NonLinear", bias_readout=True, **AGNESI, **SHARP
    ),
    "Density+NonLinear, L=0": model_of("Density", "NonLinear", L=0),
    "Attention+Attention": model_of("Attention", "Attention"),
    "Residual+Attention, 3 layers, sharp": model_of(
        "Residual", "Attention", L=0, layers=3, **SHARP
    ),
    "MACE (no scale, shift), ZBL": model_of(
        "Interaction", "Residual", plain=True, pair_repulsion=True
    ),
    "one layer": model_of("Residual", "Residual", layers=1),
    "agnostic product, last readout only": model_of("DensityResidual", "DensityResidual", **LAST),
    "three heads": model_of("Density", "DensityResidual", heads=("pt_head", "Default", "fine")),
    "two heads, NonLinear, bias readout": model_of(
        "NonLinear", "NonLinear", heads=("a", "b"), head="b", bias_readout=True, **SHARP
    ),
    "charge and spin": model_of("Residual", "Residual", **EMBEDDED),
    "charge and spin, embedding readout, heads": model_of(
        "NonLinear",
        "NonLinear",
        use_embedding_readout=True,
        heads=("a", "Default"),
        **EMBEDDED,
        **SHARP,
    ),
}
# Three states of one group with a removed and an appearing atom, and a second, independent group.
STATES = [
    {0: "Na", 1: "Na", 4: "Cl"},
    {0: "K", 1: "Rb"},
    {1: "K", 2: "Rb"},
    {5: "Cl", 3: "Na"},
    {5: "O", 3: "K"},
]
CHARGES = [{"total_charge": 0}, {"total_charge": 2, "total_spin": 3}, {"total_charge": -1}, {}, {}]


@lru_cache
def zoo_model(name: str) -> tuple[torch.nn.Module, str | None]:
    """The model *name* of the zoo, made once for all tests, and the head to choose."""
    options = dict(ZOO[name])
    head = options.pop("head", None)
    return make_model(**options), head


# of the zoo, by how the fast evaluator takes their messages
COLLAPSED = "Interaction+Residual, L=0, correlation 3"
WITH_VECTORS = "Residual+Residual, L=2"
EXPANDED = "Density+DensityResidual, Agnesi, ZBL"

EVERYWHERE = range(8)
CASES = {  # states, weights
    "two groups, three states": (STATES, [0.3, 0.5, 0.7, 0.2, 0.6]),
    "weights 0 and 1": (STATES, [0.0, 1.0, 0.0, 1.0, 0.0]),
    "every atom, sites of two kinds": (
        [
            dict.fromkeys(EVERYWHERE, "Na"),
            dict.fromkeys(EVERYWHERE, "K"),
            dict.fromkeys(range(4), "Cl"),
        ],
        [0.2, 0.5, 0.1],
    ),
    "one removed atom": ([{0: "Na"}, {}], [0.3, 0.7]),
    "plain": ([], []),
}


def backend_of(name, dtype="float64", evaluator="auto"):
    model, head = zoo_model(name)
    return MaceBackend(model, name, dtype=dtype, head=head, evaluator=evaluator)
