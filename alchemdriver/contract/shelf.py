"""The model shelf: from a model's name to a backend, its sha256 and its card.

A name is one of

* an embedded model (``demo``, ``demo-fe``), shipped as JSON + safetensors;
* a foundation model (``mace-mp-0-small``, …), fetched by mace-torch's own downloader the first
  time it is named and kept in ``$XDG_CACHE_HOME/mace`` (default ``~/.cache/mace``);
* CHGNet (``chgnet-0.3.0``, …), whose weights come with the optional package ``chgnet``;
* a path to a ``.json`` (an embedded-format model, or analytic springs for teaching) or to a
  ``.model`` file as mace's trainer writes it, relative to the folder of the input.

A ``.model`` file is a pickle, and **loading a pickle runs code that its author chose**.  Only the
file that the user named is ever loaded, and its sha256 is logged.

Nothing here imports torch before a model that needs it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from ..errors import ModelError, did_you_mean

if TYPE_CHECKING:
    pass

__all__ = ["FOUNDATION_ELEMENTS", "ModelCard", "catalogue", "model_digest"]

log = logging.getLogger(__name__)

_EMBEDDED = Path(__file__).parent.parent / "models"
FOUNDATION_ELEMENTS = (*chemical_symbols[1:84], "Ac", "Th", "Pa", "U", "Np", "Pu")
_ORGANIC = ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
_ASL = "ASL (academic, no commercial use)"
_GITHUB = "https://github.com/ACEsuit/mace-mp/releases/download"
_MATPES = "https://github.com/ACEsuit/mace-foundations/releases/download/mace_matpes_0"
_OFF = "https://raw.githubusercontent.com/ACEsuit/mace-off/main/mace_off23"


@dataclass(frozen=True)
class ModelCard:
    """What a model is, for ``alchemdriver models``."""

    name: str
    elements: tuple[str, ...]
    licence: str
    size: int | None  # bytes on this disk, None if not downloaded
    source: str
    good_for: str
    file: Path | None  # None: will be downloaded when named


@dataclass(frozen=True)
class _Foundation:
    url: str
    licence: str
    good_for: str
    elements: tuple[str, ...] = FOUNDATION_ELEMENTS


# Not on the shelf: PolarMACE (unsupported), OMOL (needs total charge and spin) and the multi-head
# models mh-0 and mh-1 (need a choice of head, which the input has no key for).
_FOUNDATIONS = {
    "mace-mp-0-small": _Foundation(
        f"{_GITHUB}/mace_mp_0/2023-12-10-mace-128-L0_energy_epoch-249.model",
        "MIT",
        "materials, PBE(+U); the model class of the paper, fastest",
    ),
    "mace-mp-0-medium": _Foundation(
        f"{_GITHUB}/mace_mp_0/2023-12-03-mace-128-L1_epoch-199.model", "MIT", "materials, PBE(+U)"
    ),
    "mace-mp-0-large": _Foundation(
        f"{_GITHUB}/mace_mp_0/MACE_MPtrj_2022.9.model", "MIT", "materials, PBE(+U)"
    ),
    "mace-mp-0b-small": _Foundation(
        f"{_GITHUB}/mace_mp_0b/mace_agnesi_small.model", "MIT", "materials; core repulsion"
    ),
    "mace-mp-0b-medium": _Foundation(
        f"{_GITHUB}/mace_mp_0b/mace_agnesi_medium.model", "MIT", "materials; core repulsion"
    ),
    "mace-mp-0b2-small": _Foundation(
        f"{_GITHUB}/mace_mp_0b2/mace-small-density-agnesi-stress.model",
        "MIT",
        "materials; high pressure",
    ),
    "mace-mp-0b2-medium": _Foundation(
        f"{_GITHUB}/mace_mp_0b2/mace-medium-density-agnesi-stress.model",
        "MIT",
        "materials; high pressure",
    ),
    "mace-mp-0b2-large": _Foundation(
        f"{_GITHUB}/mace_mp_0b2/mace-large-density-agnesi-stress.model",
        "MIT",
        "materials; high pressure",
    ),
    "mace-mp-0b3-medium": _Foundation(
        f"{_GITHUB}/mace_mp_0b3/mace-mp-0b3-medium.model", "MIT", "materials; phonons, MD"
    ),
    "mace-mpa-0": _Foundation(
        f"{_GITHUB}/mace_mpa_0/mace-mpa-0-medium.model", "MIT", "materials; more data than mp-0"
    ),
    "mace-omat-0-small": _Foundation(
        f"{_GITHUB}/mace_omat_0/mace-omat-0-small.model", _ASL, "materials; excellent phonons"
    ),
    "mace-omat-0-medium": _Foundation(
        f"{_GITHUB}/mace_omat_0/mace-omat-0-medium.model", _ASL, "materials; excellent phonons"
    ),
    "mace-matpes-pbe-0": _Foundation(
        f"{_MATPES}/MACE-matpes-pbe-omat-ft.model", _ASL, "materials, PBE without +U"
    ),
    "mace-matpes-r2scan-0": _Foundation(
        f"{_MATPES}/MACE-matpes-r2scan-omat-ft.model", _ASL, "materials, r2SCAN"
    ),
    "mace-off23-small": _Foundation(
        f"{_OFF}/MACE-OFF23_small.model", _ASL, "organic molecules", _ORGANIC
    ),
    "mace-off23-medium": _Foundation(
        f"{_OFF}/MACE-OFF23_medium.model", _ASL, "organic molecules", _ORGANIC
    ),
    "mace-off23-large": _Foundation(
        f"{_OFF}/MACE-OFF23_large.model", _ASL, "organic molecules", _ORGANIC
    ),
}

_CHGNET_SOURCE = "https://github.com/CederGroupHub/chgnet"
_CHGNET = {  # name -> file inside the chgnet package, what it is good for
    "chgnet-0.3.0": ("pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar", "materials, PBE(+U)"),
    "chgnet-0.2.0": (
        "pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
        "materials, PBE(+U); the version of the first preprints",
    ),
    "chgnet-r2scan": (
        "pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        "materials, r2SCAN",
    ),
}


def model_digest(name: str, folder: Path = Path(".")) -> str:
    """sha256 of the model's file, or of its JSON and tensors together; 64 hex digits.

    Needs no torch, except that a foundation model not yet on this disk is downloaded first.
    Raises ModelError as :func:`open_model` does.
    """
    return _sha256(_locate(name, Path(folder)))


def catalogue() -> list[ModelCard]:
    """Cards of every model that has a name; downloads nothing."""
    cards = [_embedded_card(path) for path in _embedded().values()]
    for name, entry in _FOUNDATIONS.items():
        file = _cached(entry.url)
        size = file.stat().st_size if file else None
        cards.append(
            ModelCard(name, entry.elements, entry.licence, size, entry.url, entry.good_for, file)
        )
    for name, (_, good_for) in _CHGNET.items():
        file = _chgnet_file(name)
        size = file.stat().st_size if file else None
        known = FOUNDATION_ELEMENTS
        cards.append(ModelCard(name, known, "BSD", size, _CHGNET_SOURCE, good_for, file))
    return cards


# --- finding the file -----------------------------------------------------------------------


def _embedded() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_EMBEDDED.glob("*.json"))}


def _locate(name: str, folder: Path) -> Path:
    """The file of model *name*, downloaded if it must be."""
    embedded = _embedded()
    if name in embedded:
        return embedded[name]
    if name in _FOUNDATIONS:
        return _cached(_FOUNDATIONS[name].url) or _download(name)
    if name in _CHGNET:
        file = _chgnet_file(name)
        if file is None:
            raise ModelError(
                f"model '{name}' needs the optional package chgnet (0.4.2 or later): "
                "pip install 'alchemdriver[chgnet]'"
            )
        return file
    path = Path(name).expanduser()
    path = path if path.is_absolute() else folder / path
    if path.suffix in (".model", ".json"):
        if not path.is_file():
            raise ModelError(f"model file {path} does not exist")
        return path
    known = [*embedded, *_FOUNDATIONS, *_CHGNET]
    raise ModelError(
        f"unknown model '{name}'{did_you_mean(name, known)}; expected a path to a .model or .json "
        f"file, or one of {', '.join(known)}"
    )


def _chgnet_file(name: str) -> Path | None:
    """The weights inside the chgnet package, None without it; does not import it (nor torch)."""
    spec = importlib.util.find_spec("chgnet")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / _CHGNET[name][0]
    return file if file.is_file() else None


def _cache_folder() -> Path:
    """Where mace-torch keeps downloads (mace.tools.utils.get_cache_dir, without its torch)."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mace"


def _cache_names(url: str) -> tuple[str, str]:
    """File names under which mace_mp (first) and mace_off (second) keep a download."""
    base = url.rsplit("/", 1)[1]
    return "".join(c for c in base if c.isalnum() or c == "_"), base


def _cached(url: str) -> Path | None:
    files = [_cache_folder() / name for name in _cache_names(url)]
    return next((file for file in files if file.is_file()), None)


def _download(name: str) -> Path:
    entry = _FOUNDATIONS[name]
    log.warning("downloading model %s, licence %s, from %s", name, entry.licence, entry.url)
    try:
        from mace.calculators.foundations_models import download_mace_mp_checkpoint

        with contextlib.redirect_stdout(sys.stderr):  # mace prints progress; stdout is the user's
            return Path(download_mace_mp_checkpoint(entry.url))
    except Exception as err:  # URLError, timeouts, RuntimeError for an HTML page, disk full, …
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        target = _cache_folder() / _cache_names(entry.url)[1]
        raise ModelError(
            f"model '{name}' could not be downloaded ({reason}): fetch {entry.url} on another "
            f"machine and save it as {target}"
        ) from None


# --- reading it -----------------------------------------------------------------------------


def files_of(path: Path) -> list[Path]:
    """*path*, and the tensors beside it that a JSON in the embedded format names."""
    if path.suffix != ".json":
        return [path]
    weights = _read_json(path).get("weights")
    name = weights.get("file") if isinstance(weights, dict) else None
    return [path] if name is None else [path, path.with_name(Path(str(name)).name)]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in files_of(path):
        try:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as err:
            raise ModelError(f"model file {file} cannot be read: {err.strerror}") from None
    return digest.hexdigest()


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except OSError as err:
        raise ModelError(f"model file {path} cannot be read: {err.strerror}") from None
    except ValueError:
        raise ModelError(f"model file {path} is not valid JSON") from None
    if not isinstance(content, dict):
        raise ModelError(f"model file {path}: expected a JSON object")
    return content


def _analytic(path: Path) -> str | None:
    """The analytic backend that a JSON names; None for a model of the embedded format."""
    return _read_json(path).get("backend") if path.suffix == ".json" else None


def _embedded_card(path: Path) -> ModelCard:
    """From the metadata that recipes/demo_model writes."""
    content = _read_json(path)
    about = content.get("metadata", {})
    numbers = content.get("hyperparameters", {}).get("atomic_numbers", ())
    return ModelCard(
        name=path.stem,
        elements=tuple(chemical_symbols[z] for z in numbers),
        licence=about.get("licence", ""),
        size=sum(file.stat().st_size for file in files_of(path) if file.is_file()),
        source=about.get("reference", ""),
        good_for=about.get("purpose", ""),
        file=path,
    )
