"""From a model's name to a backend; torch begins here."""

from __future__ import annotations

import logging
from pathlib import Path

from ..contract.shelf import _CHGNET, _analytic, _locate, _sha256
from ..errors import InputError, ModelError, did_you_mean
from .backends.base import Backend

log = logging.getLogger(__name__)


def open_model(
    name: str,
    folder: Path = Path("."),
    device: str = "cpu",
    dtype: str = "float64",
    evaluator: str = "auto",
) -> Backend:
    """The backend of the model called *name*; paths are relative to *folder*.

    device: 'cpu', 'cuda', 'cuda:N' or 'mps'; dtype: 'float64' or 'float32'; evaluator: see
    ``MaceBackend``.  Analytic models ignore all three.  Raises ModelError if the model is unknown,
    missing, damaged or unsupported, and InputError if the device or dtype does not exist here.
    """
    if dtype not in ("float64", "float32"):
        raise InputError(
            f"dtype: expected float64 or float32, got '{dtype}'"
            f"{did_you_mean(dtype, ('float64', 'float32'))}"
        )
    path = _locate(name, Path(folder))
    log.info("model %s: %s, sha256 %s", name, path, _sha256(path))
    analytic = _analytic(path)
    if analytic == "harmonic":
        from .backends.harmonic import HarmonicBackend

        return HarmonicBackend.from_file(path)
    if analytic == "harmonic-crystal":
        from .backends.harmonic_crystal import HarmonicCrystalBackend

        return HarmonicCrystalBackend.from_file(path)
    _check_device(device, dtype)
    if name in _CHGNET:
        from .backends.chgnet import ChgnetBackend

        return ChgnetBackend(name.removeprefix("chgnet-"), name, device, dtype)
    import mace  # noqa: F401  e3nn must not be imported first

    from .backends.mace import MaceBackend

    if path.suffix == ".json":
        from .modelfile import load_model

        model, _ = load_model(path)
    else:
        model = _load_pickle(path)
    # the backend converts: isolated-atom energies must reach it in the precision of the file
    return MaceBackend(model, name=name, device=device, dtype=dtype, evaluator=evaluator)


# --- reading it -----------------------------------------------------------------------------


def _check_device(device: str, dtype: str) -> None:
    import torch

    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except (RuntimeError, TypeError):
        kind, index = None, 0
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"device: expected cpu, cuda, cuda:N or mps, got '{device}'")
    if kind == "cuda" and torch.cuda.device_count() <= index:
        raise InputError(
            f"device '{device}' is not available: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; use device cpu"
        )
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("device 'mps' is not available here; use device cpu")
        if dtype == "float64":
            raise InputError("device 'mps' has no float64: use dtype float32, or device cpu")


def _load_pickle(path: Path):
    """The torch module in a ``.model`` file, on the CPU.  Runs the code in the pickle."""
    import torch

    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as err:  # a damaged archive or foreign pickle raises nearly anything
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise ModelError(f"model file {path} is damaged or not a MACE model: {reason}") from None
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"model file {path} is compiled: give the .model file it was made from")
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"model file {path} holds a {type(model).__name__}, not a whole model: give the "
            ".model file that mace's trainer writes, not a checkpoint"
        )
    return model
