"""Families of models: which there are, where their files are, and what opens them.

A family is data, and the name of the function that opens a model.  The table of models, the digest
of an input and the analysis therefore need neither torch nor the package of a model, and this room
knows nothing of the potentials, which are above it.

Built in (:data:`BUILT_IN`; other packages add theirs, see :mod:`.shelf`):

* ``embedded``: models shipped as JSON + safetensors, and the user's own files of that format;
* ``mace``: foundation models, fetched by mace-torch's own downloader the first time one is named
  and kept in ``$XDG_CACHE_HOME/mace`` (default ``~/.cache/mace``), and ``.model`` files as mace's
  trainer writes them;
* ``chgnet``: CHGNet, whose weights come with the optional package ``chgnet``;
* ``harmonic``, ``harmonic-crystal``: analytic springs in a JSON file, for tests and teaching;
* ``ase``: a Python file that makes an ASE calculator, and ``emt``, ASE's own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from ase.data import chemical_symbols

from ..errors import InputError, ModelError
from .files import read_json as read_file

__all__ = ["BUILT_IN", "EVALUATORS", "FOUNDATION_ELEMENTS", "ModelCard", "ModelFamily", "read_json"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelCard:
    """What a model with a name is, for ``alchemdriver models``."""

    name: str
    elements: tuple[str, ...]
    licence: str
    size: int | None  # bytes on this disk, None if it is not there
    source: str
    good_for: str
    file: Path | None  # None: to be fetched when the model is named


def _no_cards() -> Sequence[ModelCard]:
    return ()


def _nowhere(card: ModelCard) -> Path:
    raise ModelError(f"model '{card.name}' has no file here; see {card.source}")


def _alone(path: Path) -> Sequence[Path]:
    return [path]


@dataclass(frozen=True)
class ModelFamily:
    """Models that one function opens.

    Its three functions import neither torch nor the package of the models.
    """

    name: str  # what a JSON file says under its key "backend"
    # "package.module:function", imported when a model is opened, and called with
    # (name, path, device, dtype, evaluator), see potential.open; it returns a Backend
    opener: str
    # suffixes of files that are models of this family; of a .json, only if it says so
    suffixes: tuple[str, ...] = ()
    # the models that have names; downloads nothing
    cards: Callable[[], Sequence[ModelCard]] = _no_cards
    # the file of a card without one: downloads it, or raises ModelError that says what to install
    fetch: Callable[[ModelCard], Path] = _nowhere
    # all files that decide the numbers of the model in a file, that one first
    files: Callable[[Path], Sequence[Path]] = _alone
    # whether the opener takes a keyword head; it is given where the user chose one
    heads: bool = False
    # whether models in files may take a charge and a spin, which their backends say when opened
    charged: bool = False
    # whether its models know whole atoms only: no weighted graph between end states
    whole_atoms: bool = False
    # "package.module:function" that says of a file whether its model has a stress; '' if all have
    stress: str = ""

    def gives_stress(self, path: Path) -> bool:
        """Whether the model in *path* has a stress.  May open it: raises ModelError."""
        return not self.stress or bool(resolve_name(self.stress)(path))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a model's JSON file.  Raises ModelError."""
    try:
        content = read_file(path)
    except InputError as err:
        raise ModelError(f"model file {err}") from None
    if not isinstance(content, dict):
        raise ModelError(f"model file {path}: expected a JSON object")
    return content


# --- embedded -------------------------------------------------------------------------------

EVALUATORS = ("auto", "fast", "cueq", "stock")  # of MACE models
_SHIPPED = Path(__file__).parent.parent / "models"


def _shipped_cards() -> list[ModelCard]:
    return [_shipped_card(path) for path in sorted(_SHIPPED.glob("*.json"))]


def _shipped_card(path: Path) -> ModelCard:
    """From the metadata that recipes/demo_model writes."""
    content = read_json(path)
    about = content.get("metadata", {})
    numbers = content.get("hyperparameters", {}).get("atomic_numbers", ())
    return ModelCard(
        name=path.stem,
        elements=tuple(chemical_symbols[z] for z in numbers),
        licence=about.get("licence", ""),
        size=sum(file.stat().st_size for file in _with_tensors(path) if file.is_file()),
        source=about.get("reference", ""),
        good_for=about.get("purpose", ""),
        file=path,
    )


def _with_tensors(path: Path) -> list[Path]:
    """*path*, and the tensors beside it that it names."""
    weights = read_json(path).get("weights")
    name = weights.get("file") if isinstance(weights, dict) else None
    return [path] if name is None else [path, path.with_name(Path(str(name)).name)]


# --- MACE -----------------------------------------------------------------------------------

FOUNDATION_ELEMENTS = (*chemical_symbols[1:84], "Ac", "Th", "Pa", "U", "Np", "Pu")
_ORGANIC = ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
_ASL = "ASL (academic, no commercial use)"
_GITHUB = "https://github.com/ACEsuit/mace-mp/releases/download"
_MATPES = "https://github.com/ACEsuit/mace-foundations/releases/download/mace_matpes_0"
_OFF = "https://raw.githubusercontent.com/ACEsuit/mace-off/main/mace_off23"


@dataclass(frozen=True)
class _Foundation:
    url: str
    licence: str
    good_for: str
    elements: tuple[str, ...] = FOUNDATION_ELEMENTS


# Not on the shelf: PolarMACE (unsupported); OMOL and the multi-head models mh-0 and mh-1, which can
# be given as files.
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


def _foundation_cards() -> list[ModelCard]:
    cards = []
    for name, entry in _FOUNDATIONS.items():
        file = _cached(entry.url)
        size = file.stat().st_size if file else None
        cards.append(
            ModelCard(name, entry.elements, entry.licence, size, entry.url, entry.good_for, file)
        )
    return cards


def _cache_folder() -> Path | None:
    """Where mace-torch keeps downloads (mace.tools.utils.get_cache_dir, without its torch).

    None for a user who has neither a home directory nor XDG_CACHE_HOME.
    """
    folder = os.environ.get("XDG_CACHE_HOME")
    if folder is not None:
        return Path(folder) / "mace"
    try:
        home = Path.home()
        return home / ".cache" / "mace" if home.is_dir() else None
    except RuntimeError:
        return None


def _cache_names(url: str) -> tuple[str, str]:
    """File names under which mace_mp (first) and mace_off (second) keep a download."""
    base = url.rsplit("/", 1)[1]
    return "".join(c for c in base if c.isalnum() or c == "_"), base


def _cached(url: str) -> Path | None:
    folder = _cache_folder()
    files = [folder / name for name in _cache_names(url)] if folder else []
    return next((file for file in files if file.is_file()), None)


def _download(card: ModelCard) -> Path:
    url, folder = card.source, _cache_folder()
    if folder is None:
        raise ModelError(
            f"model '{card.name}' has no place here: this user has no home directory; set "
            "XDG_CACHE_HOME to a folder for downloads"
        )
    log.warning("downloading model %s, licence %s, from %s", card.name, card.licence, url)
    try:
        from mace.calculators.foundations_models import download_mace_mp_checkpoint

        with contextlib.redirect_stdout(sys.stderr):  # mace prints progress; stdout is the user's
            return Path(download_mace_mp_checkpoint(url))
    except Exception as err:  # URLError, timeouts, RuntimeError for an HTML page, disk full, …
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise ModelError(
            f"model '{card.name}' could not be downloaded ({reason}): fetch {url} on another "
            f"machine and save it as {folder / _cache_names(url)[1]}"
        ) from None


# --- CHGNet ---------------------------------------------------------------------------------

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


def _chgnet_cards() -> list[ModelCard]:
    cards = []
    for name, (_, good_for) in _CHGNET.items():
        file = _chgnet_file(name)
        size = file.stat().st_size if file else None
        known = FOUNDATION_ELEMENTS
        cards.append(ModelCard(name, known, "BSD", size, _CHGNET_SOURCE, good_for, file))
    return cards


def _chgnet_file(name: str) -> Path | None:
    """The weights inside the chgnet package, None without it; does not import it (nor torch)."""
    spec = importlib.util.find_spec("chgnet")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / _CHGNET[name][0]
    return file if file.is_file() else None


def _install_chgnet(card: ModelCard) -> Path:
    raise ModelError(
        f"model '{card.name}' needs the optional package chgnet (0.4.2 or later): "
        "pip install 'alchemdriver[chgnet]'"
    )


# --- ASE calculators ------------------------------------------------------------------------

_EMT_ELEMENTS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")  # of the metals that it is fitted to


def _emt_cards() -> list[ModelCard]:
    spec = importlib.util.find_spec("ase.calculators.emt")
    file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    size = file.stat().st_size if file else None
    source = "https://wiki.fysik.dtu.dk/ase/ase/calculators/emt.html"
    good_for = "fcc metals, fast and crude: teaching and tests; whole atoms only"
    return [ModelCard("emt", _EMT_ELEMENTS, "LGPL", size, source, good_for, file)]


# --- all ------------------------------------------------------------------------------------

_BACKENDS = "alchemdriver.potential.backends"

BUILT_IN = (
    ModelFamily(  # the first: a JSON file that names no backend is of its format
        "embedded",
        f"{_BACKENDS}.mace:open_embedded",
        heads=True,
        suffixes=(".json",),
        cards=_shipped_cards,
        files=_with_tensors,
    ),
    ModelFamily(
        "mace",
        f"{_BACKENDS}.mace:open_pickle",
        heads=True,
        charged=True,
        suffixes=(".model",),
        cards=_foundation_cards,
        fetch=_download,
    ),
    ModelFamily(
        "chgnet", f"{_BACKENDS}.chgnet:open_named", cards=_chgnet_cards, fetch=_install_chgnet
    ),
    ModelFamily(
        "ase",
        f"{_BACKENDS}.ase_calculator:open_file",
        suffixes=(".py",),
        whole_atoms=True,
        stress=f"{_BACKENDS}.ase_calculator:gives_stress",
    ),
    ModelFamily("emt", f"{_BACKENDS}.ase_calculator:open_emt", cards=_emt_cards, whole_atoms=True),
    ModelFamily("harmonic", f"{_BACKENDS}.harmonic:open_file", suffixes=(".json",)),
    ModelFamily("harmonic-crystal", f"{_BACKENDS}.harmonic_crystal:open_file", suffixes=(".json",)),
)
