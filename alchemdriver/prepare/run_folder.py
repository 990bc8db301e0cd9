"""Render a template for the user's structure: a folder (or one per replica) ready for ``run``.

Templates are complete i-PI inputs in ``ipi_inputs/``; what the user gives replaces what stands
there, so a rendered input is as readable and editable as the template.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from ..contract import run_input, shelf
from ..contract.digest import digest
from ..contract.files import whole_folder, write_json
from ..contract.parameters import KEYS, Parameters, check_parameters
from ..contract.run_input import RunInput
from ..contract.schedule import SHAPES
from ..contract.transformation import parse_alchemy
from ..contract.xyz import write_xyz
from ..errors import AlchemdriverError, InputError, did_you_mean
from ..records import Structure, Transformation
from . import tree
from .protocols import Protocol, find
from .render import Settings, check_settings, render
from .tree import Tree

MASSES = "masses.json"  # of a structure that brings its own
_MODELS = ("model", "other")  # parameters that name models
_FILE_KEYS = ("springs", "masses_file")  # parameters that name files to be copied along
# What decides the physics is never taken from a template unasked.
_NEVER_FROM_A_TEMPLATE = ("pressure", "lambda", "scale")


def prepare(
    protocol: str,
    structure: Structure,
    folder: Path,
    parameters: dict[str, str],
    settings: Settings | None = None,
    replicas: int = 1,
) -> list[Path]:
    """Write *folder* (or ``folder/replica-1`` …) with ``input.xml`` and all it needs.

    parameters: keys of the contract, as strings; they replace the template's, and what *structure*
    says of head, charge and spin.  Replica r gets the
    seed plus r − 1.  Returns the folders.  Raises InputError for anything that does not fit, before
    anything is written; a folder that already holds an input is never overwritten.
    """
    settings = settings or Settings()
    known = find(protocol)
    if replicas < 1:
        raise InputError(f"replicas: expected at least 1, got {replicas}")
    check_settings(settings)
    template = tree.template_of(known)
    own = tree.get_parameters(template)
    _check_options(known, own, parameters, settings)
    merged = {**own, **said_by(structure), **parameters}
    sources = sources_of(merged, parameters)
    merged |= {key: source.name for key, source in sources.items() if key in KEYS}
    if "," in "".join(merged.values()):
        raise InputError("parameter values cannot contain commas: i-PI splits its dictionary there")
    own_masses = structure.masses is not None and "masses_file" not in merged
    if own_masses:
        merged["masses_file"] = MASSES
    checked = check_parameters(merged)
    transformation = parse_alchemy(checked.alchemy, structure.symbols)
    check_named_models(parameters, checked, transformation)

    folder = Path(folder)
    targets = [folder] if replicas == 1 else [folder / f"replica-{r + 1}" for r in range(replicas)]
    for target in (folder, *targets):
        if (target / "input.xml").exists() or any(target.glob("replica-*/input.xml")):
            raise InputError(f"{target} already holds an input: choose another folder")
    seed = tree.get_seed(template) if settings.seed is None else settings.seed
    settings = replace(settings, seed=seed)

    # Everything is tried out in a scratch folder first: what fails leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix="alchemdriver-") as scratch:
        draft = Path(scratch)
        for source in sources.values():
            (draft / source.name).symlink_to(source.resolve())
        write_xyz(draft / "start.xyz", structure)
        if own_masses:
            write_json(draft / MASSES, masses_at_both_ends(structure, transformation))
        tree.set_held(template, structure.held)
        try:
            root = _write_input(draft / "input.xml", template, merged, settings)
        except AlchemdriverError as err:
            raise type(err)(str(err).replace(scratch, str(folder))) from None
        (draft / "input.xml").unlink()
        with whole_folder(folder) as place:
            for r, target in enumerate(targets):
                into = place / target.relative_to(folder)
                into.mkdir(exist_ok=True)
                for file in draft.iterdir():
                    shutil.copyfile(file, into / file.name)
                tree.set_seed(root, seed + r)
                tree.write_xml(into / "input.xml", root)
    return targets


def masses_at_both_ends(structure: Structure, t: Transformation) -> dict[str, list[float]]:
    """The file's masses; of an atom that changes, the final element's own at the other end."""
    initial = list(structure.masses or ())
    ends = zip(initial, t.initial, t.final, strict=True)
    final = [
        float(atomic_masses[atomic_numbers[b]]) if b is not None and b != a else m
        for m, a, b in ends
    ]
    return {"initial": initial, "final": final}


def _check_options(
    protocol: Protocol, own: dict[str, str], parameters: dict[str, str], settings: Settings
) -> None:
    """Raises InputError for what the protocol does not take, or must be told.

    own: the template's parameters, which may be repeated; λ of windows is whoever prepares them's.
    """
    for key in parameters:
        if key not in KEYS:
            raise InputError(f"unknown parameter '{key}'{did_you_mean(key, KEYS)}")
    numbers = {
        "pressure": settings.pressure,
        "timestep": settings.timestep,
        "steps": settings.total_steps,
        "beads": settings.beads,
    }
    given: dict[str, object] = {k: v for k, v in numbers.items() if v is not None}
    given |= parameters
    for name, value in given.items():
        if protocol.has(name) or own.get(name) == value:
            continue
        if name == "lambda" and protocol.at_several_lambdas:
            continue
        raise InputError(
            protocol.foreign(name) or f"'{name}' is not for prepare, which writes it by itself"
        )
    for option in protocol.needs:
        if option.name in _NEVER_FROM_A_TEMPLATE and option.name not in given:
            raise InputError(protocol.missing(option))


def sources_of(merged: dict[str, str], parameters: dict[str, str]) -> dict[str, Path]:
    """The files that parameters name, to be copied next to the input; names stay names."""
    sources = {key: Path(merged[key]) for key in _FILE_KEYS if key in merged}
    for key in _MODELS:
        if shelf.is_file(parameters.get(key, "")):
            sources[key] = Path(parameters[key])
    schedule = parameters.get("schedule")
    if schedule and schedule not in SHAPES and Path(schedule).is_file():
        sources["schedule"] = Path(schedule)
    for key, source in sources.items():
        if not source.is_file():
            raise InputError(f"{key}: file {source} does not exist")
    for key in set(_MODELS) & set(sources):  # a JSON model names its tensors, which must come along
        for i, extra in enumerate(shelf.files_of(sources[key])[1:]):
            sources[f"{key} file {i + 2}"] = extra
            if not extra.is_file():
                raise InputError(f"{key}: file {extra} does not exist")
    names = ["input.xml", "start.xyz", *(source.name for source in sources.values())]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two files would be called {name} in the run folder: rename one")
    return sources


def said_by(structure: Structure) -> dict[str, str]:
    """The parameters that a structure file says."""
    named = (("head", structure.head), ("charge", structure.charge), ("spin", structure.spin))
    return {name: str(value) for name, value in named if value is not None}


def check_named_models(
    parameters: Mapping[str, str], checked: Parameters, transformation: Transformation
) -> None:
    """Elements, head, charge and spin against the models, as far as names and files tell.

    parameters: the user's, with paths from where the user is.
    """
    for key, head in (("model", checked.head), ("other", None)):
        model = parameters.get(key, getattr(checked, key))
        if model is not None:
            check_elements(model, transformation)
            shelf.check_options(model, head, checked.charge, checked.spin)


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


def _write_input(path: Path, template: Tree, merged: dict[str, str], settings: Settings) -> Tree:
    """Render, read back, and render again with the digest and the masses that i-PI must move."""
    root = render(template, "start.xyz", merged, settings)
    run = run_input.interpret(root, path)
    start = run.lambda_path.start(run)
    if start is not run.structure:
        write_xyz(path.parent / "start.xyz", start)
        run = run_input.interpret(root, path)
    check_models(run)
    signed = {**merged, "digest": digest(run)}
    root = render(template, "start.xyz", signed, settings, masses_to_write(run))
    tree.write_xml(path, root)
    check_intervals(run_input.read_input(path))
    return root


def check_intervals(run: RunInput) -> None:
    """Raises InputError where the last steps of a run would be in no row, so that it never looks
    finished."""
    for extras in run.extras:
        n, stride = run.total_steps, extras.stride
        if n % stride:
            raise InputError(
                f"steps: {n} is no multiple of {stride}, the interval at which {extras.key} is "
                f"printed: give {(n // stride + 1) * stride}"
            )


def check_models(run: RunInput) -> None:
    """What ASE calculators cannot do; opens them if the cell moves."""
    p = run.parameters
    for name in filter(None, (p.model, p.other)):
        model = shelf.find(name, run.folder)
        if model.family.whole_atoms and run.lambda_path.weighs_graph:
            raise InputError(
                f"model '{name}' knows whole atoms only: there is no "
                "weighted graph between its end states; use --interpolation linear"
            )
        if run.constant_pressure and not model.family.gives_stress(model.path):
            raise InputError(
                f"model '{name}' gives no stress, so the cell cannot move: use a protocol at "
                "constant volume"
            )


def masses_to_write(run: RunInput) -> np.ndarray | None:
    """Masses (N,) u that the XML must say for i-PI to move them; None if i-PI's own are those, or
    the server sets them at every step."""
    if run.schedule is not None and run.interpolates_masses:
        return None
    meant = run.masses(run.parameters.lam) if run.interpolates_masses else run.held_masses
    return None if ipi_masses_are(meant, run.structure.symbols) else meant


def ipi_masses_are(masses: np.ndarray, symbols: tuple[str, ...]) -> bool:
    """Whether i-PI's own table, which is older than ASE's, gives *masses* (N,) u to *symbols*."""
    from ipi.utils.units import Elements

    table = [Elements.mass_list.get(s, 0.0) for s in symbols]
    return bool(np.allclose(masses, table, rtol=1e-6, atol=0.0))
