"""Render a template for the user's structure: a folder (or one per replica) ready for ``run``.

Templates are complete i-PI inputs in ``ipi_inputs/``; what the user gives replaces what stands
there, so a rendered input is as readable and editable as the template.
"""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from ..contract import run_input, shelf
from ..contract.digest import digest
from ..contract.parameters import KEYS, check_parameters, split_parameters
from ..contract.schedule import SHAPES
from ..contract.springs import mass_centre_offset, read_springs
from ..contract.transformation import NONE, parse_alchemy
from ..contract.xmltree import parse_xml, text_of
from ..contract.xyz import write_xyz
from ..errors import AlchemdriverError, InputError, did_you_mean
from ..records import Structure, Transformation
from .render import Settings, check_settings, render, write_xml

TEMPLATES = {
    "nvt": "nvt.xml",
    "npt": "npt.xml",
    "npt-flexible": "npt_flexible.xml",
    "nvt-fixed": "nvt_fixed.xml",
    "switch-nvt": "switch_nvt.xml",
    "switch-npt": "switch_npt.xml",
    "switch-npt-flexible": "switch_npt_flexible.xml",
    "pimd-fixed": "pimd_fixed.xml",
    "windows-nvt": "windows_nvt.xml",
    "windows-npt": "windows_npt.xml",
    "scaling-nvt": "scaling_nvt.xml",
    "scaling-npt": "scaling_npt.xml",
    "pimd-fixed-npt": "pimd_fixed_npt.xml",
    "switch-pimd": "switch_pimd.xml",
    "switch-pimd-npt": "switch_pimd_npt.xml",
}
STAGED = ("crystal", "vacancy", "transmute")  # several runs each, see alchemdriver.workflow
PLAIN = ("nvt", "npt", "npt-flexible")  # dynamics of the model, no λ
SCALING = ("scaling-nvt", "scaling-npt")  # of the model alone
_FILE_KEYS = ("springs", "masses_file")  # parameters that name files to be copied along


def template_path(protocol: str) -> Path:
    """The XML file of a protocol.  Raises InputError with a suggestion for an unknown one."""
    if protocol not in TEMPLATES:
        raise InputError(
            f"unknown protocol '{protocol}'{did_you_mean(protocol, [*TEMPLATES, *STAGED])}; "
            f"known: {', '.join([*TEMPLATES, *STAGED])}"
        )
    return Path(str(resources.files("alchemdriver.ipi_inputs") / TEMPLATES[protocol]))


def prepare(
    protocol: str,
    structure: Structure,
    folder: Path,
    parameters: dict[str, str],
    settings: Settings | None = None,
    replicas: int = 1,
) -> list[Path]:
    """Write *folder* (or ``folder/replica-1`` …) with ``input.xml`` and all it needs.

    parameters: keys of the contract, as strings; they replace the template's.  Replica r gets the
    seed plus r − 1.  Returns the folders.  Raises InputError for anything that does not fit, before
    anything is written; a folder that already holds an input is never overwritten.
    """
    settings = settings or Settings()
    for key in parameters:
        if key not in KEYS:
            raise InputError(f"unknown parameter '{key}'{did_you_mean(key, KEYS)}")
    if replicas < 1:
        raise InputError(f"replicas: expected at least 1, got {replicas}")
    check_settings(settings)
    template = parse_xml(template_path(protocol).read_text(), protocol)
    ff = run_input.alchemical_forcefield(template)
    own = split_parameters(text_of(ff["parameters"]))
    if "schedule" not in own and "schedule" in parameters:
        raise InputError(
            f"protocol '{protocol}' keeps lambda fixed: use one of the switch protocols"
        )
    if "schedule" in own and settings.total_steps is not None:
        raise InputError(
            f"steps: protocol '{protocol}' takes its length from equilibrate, switch and cycles"
        )
    # What decides the physics is never taken from a template unasked.
    if "pressure" in template["system"]["ensemble"] and settings.pressure is None:
        raise InputError(f"protocol '{protocol}' needs a pressure (bar), e.g. --pressure 1")
    plain = own.get("alchemy") == NONE
    if plain and parameters.get("alchemy", NONE) != NONE:
        raise InputError(
            f"protocol '{protocol}' is plain dynamics of the model: remove the alchemy, or use "
            f"{protocol}-fixed or switch-{protocol}"
        )
    if "schedule" not in own and "lambda" not in parameters and not plain:
        raise InputError(f"protocol '{protocol}' needs a lambda, e.g. --lambda 0.5")
    if "scale" in own and "scale" not in parameters:
        raise InputError(f"protocol '{protocol}' needs a scale T0/T, e.g. --scale 0.25")
    merged = {**own, **parameters}
    sources = _sources(merged, parameters)
    merged |= {key: source.name for key, source in sources.items() if key in KEYS}
    if "," in "".join(merged.values()):
        raise InputError("parameter values cannot contain commas: i-PI splits its dictionary there")
    checked = check_parameters(merged)
    transformation = parse_alchemy(checked.alchemy, structure.symbols)
    check_elements(checked.model, transformation)

    folder = Path(folder)
    targets = [folder] if replicas == 1 else [folder / f"replica-{r + 1}" for r in range(replicas)]
    for target in (folder, *targets):
        if (target / "input.xml").exists() or any(target.glob("replica-*/input.xml")):
            raise InputError(f"{target} already holds an input: choose another folder")
    if settings.seed is None:
        settings = replace(settings, seed=int(text_of(template["prng"]["seed"])))

    # Everything is tried out in a scratch folder first: what fails leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix="alchemdriver-") as scratch:
        draft = Path(scratch)
        for source in sources.values():
            (draft / source.name).symlink_to(source.resolve())
        write_xyz(draft / "start.xyz", structure)
        try:
            root = _write_input(draft / "input.xml", template, merged, settings)
        except AlchemdriverError as err:
            raise type(err)(str(err).replace(scratch, str(folder))) from None
        for target in targets:
            _refuse_to_overwrite(draft, target)
        for r, target in enumerate(targets):
            target.mkdir(parents=True, exist_ok=True)
            for file in draft.iterdir():
                if not (target / file.name).exists():
                    shutil.copyfile(file, target / file.name)
            root["prng"]["seed"] = str(settings.seed + r)
            write_xml(target / "input.xml", root)
    return targets


def _onto_anchors(run: run_input.RunInput) -> Structure:
    """The start of an einstein->model run, moved as a whole so that its mass centre is the
    anchors': eq. 19 assumes it, and the fixed centre of mass stays there for the whole run.
    """
    start = run.structure
    anchors, _ = read_springs(run.folder / run.parameters.springs, start)
    shift = mass_centre_offset(start, anchors, run.initial_masses)
    return replace(start, positions=start.positions - shift)


def _sources(merged: dict[str, str], parameters: dict[str, str]) -> dict[str, Path]:
    """The files that parameters name, to be copied next to the input; names stay names."""
    sources = {key: Path(merged[key]) for key in _FILE_KEYS if key in merged}
    if Path(parameters.get("model", "")).suffix in (".model", ".json"):
        sources["model"] = Path(parameters["model"])
    schedule = parameters.get("schedule")
    if schedule and schedule not in SHAPES and Path(schedule).is_file():
        sources["schedule"] = Path(schedule)
    for key, source in sources.items():
        if not source.is_file():
            raise InputError(f"{key}: file {source} does not exist")
    if "model" in sources:  # a JSON model names its tensors, which must come along
        for i, extra in enumerate(shelf.files_of(sources["model"])[1:]):
            sources[f"model file {i + 2}"] = extra
            if not extra.is_file():
                raise InputError(f"model: file {extra} does not exist")
    names = ["input.xml", "start.xyz", *(source.name for source in sources.values())]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two files would be called {name} in the run folder: rename one")
    return sources


def check_elements(model: str, transformation: Transformation) -> None:
    """Elements that a model from the shelf does not know; of files, the client knows."""
    card = next((card for card in shelf.catalogue() if card.name == model), None)
    known = set(card.elements) if card else set()
    wanted = {s for s in (*transformation.initial, *transformation.final) if s is not None}
    if known and wanted - known:
        raise InputError(
            f"model '{model}' does not know {', '.join(sorted(wanted - known))}: choose another "
            "(see 'alchemdriver models')"
        )


def _refuse_to_overwrite(draft: Path, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: choose another folder")
    for file in draft.iterdir():
        there = target / file.name
        if there.exists() and not (there.is_file() and filecmp.cmp(file, there, shallow=False)):
            raise InputError(f"{target} already holds another {file.name}: choose another folder")


def _write_input(path: Path, template: dict, merged: dict[str, str], settings: Settings) -> dict:
    """Render, read back, and render again with the digest and the masses that i-PI must move.

    Under a schedule with interpolated masses the server sets them; else they stand in the XML
    wherever they differ from those that i-PI gives the elements.
    """
    root = render(template, "start.xyz", merged, settings)
    run = run_input.interpret(root, path)
    if run.transformation.einstein:
        write_xyz(path.parent / "start.xyz", _onto_anchors(run))
        run = run_input.interpret(root, path)
    masses = None
    if run.schedule is None or not run.interpolates_masses:
        meant = run.masses(run.parameters.lam) if run.interpolates_masses else run.held_masses
        masses = None if _ipi_masses_are(meant, run.structure.symbols) else meant
    root = render(template, "start.xyz", {**merged, "digest": digest(run)}, settings, masses)
    write_xml(path, root)
    run_input.read_input(path)
    return root


def _ipi_masses_are(masses: np.ndarray, symbols: tuple[str, ...]) -> bool:
    """Whether i-PI's own table, which is older than ASE's, gives *masses* (N,) u to *symbols*."""
    from ipi.utils.units import Elements

    table = [Elements.mass_list.get(s, 0.0) for s in symbols]
    return bool(np.allclose(masses, table, rtol=1e-6, atol=0.0))
