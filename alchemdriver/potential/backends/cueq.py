"""A MACE model on the layers of cuEquivariance, which are made for GPUs (extra ``[gpu]``)."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import mace  # noqa: F401  must come before e3nn
import torch
from mace.modules import MACE

from ...errors import ModelError

__all__ = ["converted"]


def converted(model: MACE, name: str, device: torch.device) -> MACE:
    """A frozen copy of *model*, by mace-torch's own conversion.

    Raises ModelError if cuEquivariance is not installed, or if the conversion refuses the model.
    """
    from mace.cli import convert_e3nn_cueq
    from mace.modules import wrapper_ops

    if not wrapper_ops.CUET_AVAILABLE:
        raise ModelError(
            "cuEquivariance is not installed: pip install 'alchemdriver[gpu]', or choose another "
            "evaluator"
        )
    before = torch.get_default_dtype()
    card = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    try:
        # the new model draws weights before it gets those of the old one
        with card, torch.random.fork_rng(devices=[]):
            new = convert_e3nn_cueq.run(copy.deepcopy(model), return_model=True, device=device.type)
    except Exception as err:  # whatever a block that it does not know leads to
        why = " ".join(str(err).split()) or type(err).__name__
        raise ModelError(f"model '{name}' cannot run on cuEquivariance: {why}") from None
    finally:
        torch.set_default_dtype(before)
    return new.to(device).eval().requires_grad_(False)
