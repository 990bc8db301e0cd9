"""Files of MACE models: JSON + safetensors, which hold no code, and mace's own pickles.

A model of the embedded format is two files side by side: ``stem.json`` (hyperparameters and where
the model comes from) and ``stem.safetensors`` (weights).  Loading rebuilds the stock mace-torch
class from the hyperparameters; nothing is unpickled, so such a file cannot run anything.

A ``.model`` file is a pickle, and **loading a pickle runs code that its author chose**.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from mace import modules
from mace.modules import ScaleShiftMACE
from mace.tools.scripts_utils import extract_config_mace_model
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..contract.files import json_text, write_files
from ..errors import ModelError
from .precision import default_dtype

__all__ = ["ModelFileError", "load_model", "load_pickle", "save_model"]

FORMAT = "alchemdriver-model-1"

# Constructor arguments that are classes or functions, by the names that mace-torch gives them.
READOUTS = {
    c.__name__: c for c in (modules.NonLinearReadoutBlock, modules.NonLinearBiasReadoutBlock)
}
# Features whose constructor arguments `extract_config_mace_model` cannot give back faithfully.
UNSUPPORTED = ("embedding_specs", "cueq_config", "edge_irreps")


class ModelFileError(ModelError, ValueError):
    """A model file is missing, damaged or not of this format."""


def save_model(model: ScaleShiftMACE, stem: Path, metadata: dict[str, Any]) -> Path:
    """Write ``stem.json`` and ``stem.safetensors``; return the path of the former.

    ``metadata`` is free-form JSON: provenance, licence, accuracy, temperature range.
    """
    stem = Path(stem)
    hyperparameters = _hyperparameters(model)
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    rebuilt = _build(hyperparameters).state_dict()
    if {k: v.shape for k, v in rebuilt.items()} != {k: v.shape for k, v in weights.items()}:
        raise ModelFileError(
            f"cannot save {type(model).__name__}: its weights do not fit the stock class rebuilt "
            "from its hyperparameters; save an unmodified ScaleShiftMACE"
        )
    weights_path = stem.with_name(stem.name + ".safetensors")
    tensors = save(weights)
    content = {
        "format": FORMAT,
        "class": "ScaleShiftMACE",
        "hyperparameters": hyperparameters,
        "weights": {"file": weights_path.name, "sha256": _sha256(tensors)},
        "metadata": metadata,
    }
    json_path = stem.with_name(stem.name + ".json")
    write_files({weights_path: tensors, json_path: json_text(content)})
    return json_path


def load_model(
    json_path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
) -> tuple[ScaleShiftMACE, dict[str, Any]]:
    """The stock MACE model in eval mode, and the metadata stored with it.

    The model is built in float64 and then cast to ``dtype``, so that Clebsch-Gordan coefficients
    have full precision whatever precision the weights were trained in; but for the coupling
    matrices of products, which are stored with the weights, and rounded like them.
    """
    json_path = Path(json_path)
    content, weights_path = _read_description(json_path)
    try:
        data = weights_path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"weights {weights_path} cannot be read ({error.strerror}); "
            f"they must lie beside {json_path.name}"
        ) from error
    expected = content["weights"]["sha256"]
    if _sha256(data) != expected:
        raise ModelFileError(
            f"weights {weights_path} are damaged: expected SHA-256 {expected[:12]}…, "
            f"got {_sha256(data)[:12]}… ({len(data)} bytes); fetch the file again"
        )
    try:
        with warnings.catch_warnings():
            # TorchScript remarks on every annotated attribute of e3nn and mace, hundreds of lines
            warnings.filterwarnings("ignore", message="The TorchScript type system")
            model = _build(content["hyperparameters"])
        model.load_state_dict(load(data))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(
            f"model {json_path} does not describe a ScaleShiftMACE: {reason}"
        ) from error
    return model.to(device=device, dtype=dtype).eval(), content["metadata"]


def load_pickle(path: Path) -> torch.nn.Module:
    """The torch module in a ``.model`` file, on the CPU.  Runs the code in the pickle.

    Raises ModelError for a damaged file, or one that holds something else than a whole model.
    """
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


def _read_description(json_path: Path) -> tuple[dict[str, Any], Path]:
    try:
        content = json.loads(json_path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"model {json_path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ModelFileError(f"model {json_path} is damaged: not valid JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelFileError(f"model {json_path}: expected a JSON file of format {FORMAT!r}")
    try:
        name = content["weights"]["file"]
        content["weights"]["sha256"], content["hyperparameters"], content["metadata"]
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"model {json_path} is damaged: {error} is missing") from error
    if Path(name).name != name:
        raise ModelFileError(f"model {json_path}: weights must lie beside it, got {name!r}")
    return content, json_path.with_name(name)


def _hyperparameters(model: ScaleShiftMACE) -> dict[str, Any]:
    """Constructor arguments of ``model`` as JSON values."""
    config: dict[str, Any] = extract_config_mace_model(model)
    if "error" in config:
        raise ModelFileError(f"expected a ScaleShiftMACE, got {type(model).__name__}")
    for name in UNSUPPORTED:
        if config.pop(name) is not None:
            raise ModelFileError(f"cannot save a model with {name}; convert it to stock MACE first")
    for name in ("interaction_cls", "interaction_cls_first", "readout_cls"):
        config[name] = config[name].__name__
    gates = {function: name for name, function in modules.gate_dict.items()}
    config["gate"] = gates[config["gate"]]
    for name in ("hidden_irreps", "MLP_irreps"):
        config[name] = str(config[name])
    for name in ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift", "atomic_numbers"):
        config[name] = config[name].tolist()
    config["avg_num_neighbors"] = float(config["avg_num_neighbors"])
    config["heads"] = list(config["heads"])
    config["radial_MLP"] = [int(width) for width in config["radial_MLP"]]
    return config


def _build(hyperparameters: dict[str, Any]) -> ScaleShiftMACE:
    """A stock model in float64 with arbitrary weights."""
    from e3nn import o3  # only after mace, which prepares recent torch for it

    config = dict(hyperparameters)
    for name in ("interaction_cls", "interaction_cls_first"):
        config[name] = modules.interaction_classes[config[name]]
    config["readout_cls"] = READOUTS[config["readout_cls"]]
    config["gate"] = modules.gate_dict[config["gate"]]
    for name in ("hidden_irreps", "MLP_irreps"):
        config[name] = o3.Irreps(config[name])
    with default_dtype(torch.float64):
        return ScaleShiftMACE(**config)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
