"""``prepare crystal | vacancy | transmute``: the stages of a free energy, written as a folder.

    crystal    relax → NPT (mean cell) → NVT (spring constants) → Frenkel–Ladd      eqs. 17–20
    vacancy    both of crystal, and: relax → NPT → Frenkel–Ladd of the defect       eq. 12
               NPT switch atom → void, on the perfect crystal's spring              eq. 21
    transmute  for each phase: NPT switch of the elements                           eqs. 13, 22
               and both end states as crystals                                      eq. 13

The folder is whole or absent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..contract import manifest, shelf
from ..contract.files import whole_folder
from ..contract.manifest import Calculation, Stage, Workflow
from ..contract.relaxation import Relaxation
from ..contract.settings import (
    Common,
    Crystal,
    CrystalSettings,
    TransmuteSettings,
    VacancySettings,
    WorkflowSettings,
)
from ..contract.transformation import parse_alchemy
from ..contract.xmltree import child, many, text_of
from ..contract.xyz import write_xyz
from ..errors import InputError
from ..paths.einstein import EINSTEIN
from ..paths.formulas import lattice_translations
from ..paths.plain import NONE
from ..prepare import tree
from ..prepare.protocols import find
from ..prepare.render import Settings, render
from ..prepare.run_folder import check_elements
from ..records import Structure, Transformation
from .limits import check_errors, too_short
from .reaction import check_same_reaction, counts, formula_units, reduced_formula
from .symmetry import SpaceGroup, space_group

FL, ALCHEMICAL = "Frenkel–Ladd", "alchemical"


class Plan:
    """Collects stages and writes their inputs below *root*."""

    def __init__(self, root: Path, common: Common):
        self.root = root
        self.common = common
        self.stages: list[Stage] = []
        self.calculations: list[Calculation] = []
        self._model = _bring_model(root, common.model)
        self._whole_atoms = shelf.family(common.model).whole_atoms
        self._seed = common.seed

    # --- stages

    def relax(self, name: str, structure: str) -> str:
        """Cell and positions; returns the path of the relaxed structure."""
        stage = self._new(Stage(name, "relax", {"start.xyz": structure}))
        c = self.common
        (path,) = stage.inputs(self.root)
        model = self._model_from(path.parent)
        Relaxation(model, c.pressure_bar, dtype=c.dtype, head=c.head).write(path)
        return f"{name}/relaxed.xyz"

    def npt(self, name: str, start: str, temperature: float, group: SpaceGroup) -> str:
        """Mean structure at constant pressure; returns its path."""
        stage = self._new(
            Stage(name, "mean structure", {"start.xyz": start}, temperature=temperature)
        )
        protocol = "npt" if self.common.beads == 1 else "pimd-fixed-npt"
        self._write(stage, protocol, temperature, {"alchemy": NONE, "lambda": "0"}, group)
        return f"{name}/mean.xyz"

    def nvt(self, name: str, start: str, temperature: float) -> tuple[str, str]:
        """Mean structure and spring constants at constant volume; returns their paths."""
        stage = self._new(Stage(name, "springs", {"start.xyz": start}, temperature=temperature))
        self._write(stage, "nvt", temperature, {"alchemy": NONE, "lambda": "0"})
        return f"{name}/mean.xyz", f"{name}/einstein.extxyz"

    def frenkel_ladd(
        self,
        name: str,
        start: str,
        springs: str,
        temperature: float,
        removed: tuple[int, ...] = (),
    ) -> str:
        """Einstein crystal ⇄ model, replicas; returns the stage's name."""
        takes = {"start.xyz": start, "einstein.extxyz": springs}
        stage = self._new(
            Stage(name, "free energy", takes, removed, self.common.replicas, temperature)
        )
        parameters = {"alchemy": EINSTEIN, "springs": "einstein.extxyz", **self._switching()}
        protocol = "switch-nvt" if self.common.beads == 1 else "switch-pimd"
        self._write(stage, protocol, temperature, parameters)
        return name

    def alchemical(
        self,
        name: str,
        start: str,
        alchemy: str,
        temperature: float,
        group: SpaceGroup,
        springs: str | None = None,
        removed: tuple[int, ...] = (),
        tether: float | None = None,
    ) -> str:
        """Switch of elements, or of atoms to void on the springs' k; returns the stage's name."""
        takes = {"start.xyz": start}
        parameters = {"alchemy": alchemy, **self._switching()}
        if self._whole_atoms:  # no other way between its end states
            parameters["interpolation"] = "linear"
        if tether is not None:
            parameters["tether"] = repr(tether)
        elif springs is not None:
            takes["tether"] = springs
        stage = self._new(
            Stage(name, "free energy", takes, removed, self.common.replicas, temperature)
        )
        protocol = "switch-npt" if self.common.beads == 1 else "switch-pimd-npt"
        self._write(stage, protocol, temperature, parameters, group)
        return name

    def crystal(
        self, prefix: str, first: int, relaxed: str, temperature: float, group: SpaceGroup
    ) -> tuple[str, str, str]:
        """NPT, NVT and Frenkel–Ladd; the mean structure, the springs and the last stage.

        group: decides on the barostat, which both ends of a path must share
        """
        at = f"{prefix}{temperature:g}K/"
        npt = self.npt(f"{at}{first:02d}-npt", relaxed, temperature, group)
        mean, springs = self.nvt(f"{at}{first + 1:02d}-nvt", npt, temperature)
        stage = self.frenkel_ladd(f"{at}{first + 2:02d}-frenkel-ladd", mean, springs, temperature)
        return npt, springs, stage

    # --- files

    def _switching(self) -> dict[str, str]:
        c = self.common
        return {
            "schedule": c.schedule,
            "equilibrate": str(c.equilibrate),
            "switch": str(c.switch),
            "cycles": str(c.cycles),
        }

    def _new(self, stage: Stage) -> Stage:
        (self.root / stage.name).mkdir(parents=True)
        self.stages.append(stage)
        return stage

    def _model_from(self, folder: Path) -> str:
        """The model as an input in *folder* must name it."""
        if "/" not in self._model:
            return self._model
        return os.path.relpath(self.root / self._model, folder)

    def _write(
        self,
        stage: Stage,
        protocol: str,
        temperature: float,
        parameters: dict[str, str],
        group: SpaceGroup | None = None,
    ) -> None:
        """The inputs of *stage*; at constant pressure *group* says which barostat it needs."""
        c = self.common
        known = find(protocol)
        template = tree.template_of(known)
        own = tree.get_parameters(template)
        for path in stage.inputs(self.root):
            path.parent.mkdir(exist_ok=True)
            merged = {**own, "dtype": c.dtype, **parameters, "model": self._model_from(path.parent)}
            if c.head is not None:
                merged["head"] = c.head
            settings = Settings(
                temperature=temperature,
                pressure=c.pressure_bar if known.constant_pressure else None,
                timestep=c.timestep_fs,
                total_steps=None if "schedule" in parameters else c.md_steps,
                beads=c.beads if known.path_integrals else None,
                seed=self._seed,
            )
            self._seed += 1  # no two runs of a workflow share a seed
            root = render(template, "start.xyz", merged, settings)
            if group is not None and not group.cubic:
                tree.set_flexible(root)
            self._check_length(stage, root)
            tree.write_xml(path, root)

    def _check_length(self, stage: Stage, root: tree.Tree) -> None:
        """Raises InputError for a stage that could not give what the next ones need."""
        (stride,) = (
            int(node["@stride"])
            for node in many(child(root, "output", "trajectory"))
            if text_of(node).startswith("positions")
        )
        c = self.common
        why = too_short(stage.does, stride, c.md_steps, c.equilibrate)
        if why is not None:
            option = "--equilibrate" if stage.does == "free energy" else "--steps"
            raise InputError(f"{option}: {why}")


def _bring_model(root: Path, model: str) -> str:
    """A model file is copied into the folder, once; a name stays a name."""
    path = Path(model)
    if not shelf.is_file(model):
        if model not in {card.name for card in shelf.catalogue()}:
            raise InputError(shelf.unknown(model))
        return model
    if not path.is_file():
        raise InputError(f"model: file {path} does not exist")
    (root / "model").mkdir()
    for file in shelf.files_of(path):
        if not file.is_file():
            raise InputError(f"model: file {file} does not exist")
        shutil.copyfile(file, root / "model" / file.name)
    return f"model/{path.name}"


# --- the workflows ------------------------------------------------------------------------------


def prepare_crystal(structure: Structure, folder: Path, common: Common) -> Workflow:
    """Absolute Gibbs free energies of a crystal at every temperature; eqs. 17–20."""
    group = space_group(structure)

    def build(plan: Plan) -> None:
        write_xyz(plan.root / "crystal.xyz", structure)
        relaxed = plan.relax("01-relax", "crystal.xyz")
        for t in common.temperatures_K:
            _, _, stage = plan.crystal("", 2, relaxed, t, group)
            plan.calculations.append(Calculation("G", FL, t, {"crystal": stage}))

    def settings(crystals: dict[str, Crystal]) -> WorkflowSettings:
        return CrystalSettings(**vars(common), crystals=crystals)

    crystals = {"crystal": (structure, group)}
    return _write_workflow("crystal", folder, common, crystals, build, settings)


def prepare_vacancy(
    structure: Structure,
    sites: Sequence[int],
    folder: Path,
    common: Common,
    chemical_potentials: dict[str, float] | None = None,
    tether: float | None = None,
) -> Workflow:
    """Free energy of removing the atoms *sites* (indices from 0) together; eqs. 12 and 21.

    chemical_potentials: eV per atom of each element removed; not needed for a crystal of one
    element, whose own G/N is the reference.  tether: eV/Å², instead of the crystal's springs.
    """
    sites = _check_sites(structure, sites)
    elements = sorted({structure.symbols[i] for i in sites})
    potentials = dict(chemical_potentials or {})
    for symbol in potentials:
        if symbol not in elements:
            raise InputError(f"chemical potential of {symbol} is given, but none is removed")
    if len(set(structure.symbols)) == 1 and potentials:
        raise InputError("a crystal of one element is its own reference: no chemical potentials")
    if len(set(structure.symbols)) > 1:
        missing = [s for s in elements if s not in potentials]
        if missing:
            raise InputError(
                f"the chemical potential of {', '.join(missing)} (eV per atom) is needed for eq. "
                "12 in a compound, e.g. --chemical-potential 'I=-1.52': G per atom of a phase that "
                "sets it, such as the pure element's by 'alchemdriver prepare crystal' with the "
                "same model, temperature and pressure, or G per formula unit of a neighbouring "
                "compound minus the potentials of its other elements"
            )
    group = space_group(structure)
    kept = [i for i in range(len(structure)) if i not in sites]
    defect = replace(
        structure,
        symbols=tuple(structure.symbols[i] for i in kept),
        positions=structure.positions[kept],
    )
    defect_group = space_group(defect)
    # the cell loses its symmetry on the way, and the finite-cell term needs one barostat for all
    free = group if defect_group.cubic else defect_group
    alchemy = " ".join(
        f"{s}[{';'.join(str(i) for i in sites if structure.symbols[i] == s)}]->void"
        for s in elements
    )

    def build(plan: Plan) -> None:
        write_xyz(plan.root / "crystal.xyz", structure)
        write_xyz(plan.root / "defect.xyz", defect)
        relaxed = plan.relax("01-relax", "crystal.xyz")
        by_springs = common.route in ("both", "frenkel-ladd")
        by_alchemy = common.route in ("both", "alchemical")
        if by_springs:
            relaxed_defect = plan.relax("05-relax-defect", "defect.xyz")
        for t in common.temperatures_K:
            mean, springs, perfect = plan.crystal("", 2, relaxed, t, free if by_alchemy else group)
            plan.calculations.append(Calculation("G", FL, t, {"crystal": perfect}))
            if by_springs:
                at = f"{t:g}K/"
                npt = plan.npt(f"{at}06-npt-defect", relaxed_defect, t, free)
                stage = plan.frenkel_ladd(
                    f"{at}07-frenkel-ladd-defect", npt, springs, t, tuple(sites)
                )
                plan.calculations.append(
                    Calculation("G_v", FL, t, {"crystal": perfect, "defect": stage})
                )
            if by_alchemy:
                stage = plan.alchemical(
                    f"{t:g}K/08-alchemical", mean, alchemy, t, free, springs, tuple(sites), tether
                )
                plan.calculations.append(
                    Calculation("G_v", ALCHEMICAL, t, {"crystal": perfect, "path": stage})
                )

    def settings(crystals: dict[str, Crystal]) -> WorkflowSettings:
        return VacancySettings(
            **vars(common),
            sites=tuple(sites),
            removed={s: sum(structure.symbols[i] == s for i in sites) for s in elements},
            configurations=group.images(tuple(sites)),
            chemical_potentials_eV=potentials,
            crystals=crystals,
        )

    crystals = {"crystal": (structure, group)}
    transformation = parse_alchemy(alchemy, structure.symbols)
    return _write_workflow("vacancy", folder, common, crystals, build, settings, transformation)


def prepare_transmute(
    phases: dict[str, Structure], alchemy: str, folder: Path, common: Common
) -> Workflow:
    """ΔG of changing elements in one phase, or in two and their ΔΔG; eqs. 13, 21, 22.

    phases: label → structure; indices of *alchemy* count in each of them.
    """
    if common.beads > 1:
        raise InputError(
            "transmute with beads: masses change, which needs a mass leg; prepare switch-pimd-npt "
            "runs and add it with 'alchemdriver mass-leg'"
        )
    if not 1 <= len(phases) <= 2:
        raise InputError(f"transmute: expected one or two phases, got {len(phases)}")
    if len(phases) == 2:
        if common.n_ws is not None or common.formula_units is not None:
            raise InputError(
                "--n-ws and --formula-units are for one crystal: with two phases they are found "
                "from the structures; prepare the phases apart to give your own"
            )
        check_same_reaction(phases, alchemy)
    if "model" in phases:
        raise InputError("a phase called 'model' collides with the folder of the model: rename it")
    crystals: dict[str, tuple[Structure, SpaceGroup]] = {}
    finals: dict[str, tuple[Structure, SpaceGroup]] = {}
    for label, structure in phases.items():
        transformation = parse_alchemy(alchemy, structure.symbols)
        if not transformation.changed or transformation.voids:
            raise InputError(
                f"transmute: expected a change of elements such as Pb->Sn, got '{alchemy}'"
            )
        crystals[label] = (structure, space_group(structure))
        symbols = tuple(s for s in transformation.final if s is not None)  # none is a void
        final = replace(structure, symbols=symbols)
        finals[label] = (final, space_group(final))

    def build(plan: Plan) -> None:
        for label, (structure, group) in crystals.items():
            p = f"{label}/"
            (plan.root / p).mkdir()
            write_xyz(plan.root / p / "initial.xyz", structure)
            final, final_group = finals[label]
            relaxed = plan.relax(f"{p}01-relax", f"{p}initial.xyz")
            by_springs, by_alchemy = common.route != "alchemical", common.route != "frenkel-ladd"
            free = final_group if group.cubic else group
            ends = (free, free) if by_alchemy else (group, final_group)
            if by_springs:
                write_xyz(plan.root / p / "final.xyz", final)
                relaxed_final = plan.relax(f"{p}05-relax-final", f"{p}final.xyz")
            for t in common.temperatures_K:
                at = f"{p}{t:g}K/"
                if by_springs:
                    mean, _, start = plan.crystal(p, 2, relaxed, t, ends[0])
                    _, _, end = plan.crystal(p, 6, relaxed_final, t, ends[1])
                    stages = {"initial": start, "final": end}
                    for state, stage in stages.items():
                        plan.calculations.append(
                            Calculation("G", FL, t, {"crystal": stage}, label, state)
                        )
                    plan.calculations.append(Calculation("ΔG", FL, t, stages, label))
                else:
                    mean = plan.npt(f"{at}02-npt", relaxed, t, group)
                if by_alchemy:
                    stage = plan.alchemical(f"{at}09-alchemical", mean, alchemy, t, free)
                    plan.calculations.append(
                        Calculation("ΔG", ALCHEMICAL, t, {"path": stage}, label)
                    )

    changed = {k: parse_alchemy(alchemy, s.symbols).changed for k, s in phases.items()}

    def configurations(ends: dict[str, tuple[Structure, SpaceGroup]]) -> dict[str, int]:
        return {label: group.images(changed[label]) for label, (_, group) in ends.items()}

    def settings(found: dict[str, Crystal]) -> WorkflowSettings:
        return TransmuteSettings(
            **vars(common),
            alchemy=alchemy,
            phases=tuple(phases),
            configurations=configurations(crystals),
            configurations_initial=configurations(finals),
            substituted={
                label: len(changed[label])
                for label, (s, _) in crystals.items()
                if formula_units(s) != formula_units(finals[label][0])
            },
            crystals={
                label: replace(c, n_ws=max(c.n_ws, _n_ws(common, finals[label][0])))
                for label, c in found.items()
            },
        )

    transformation = parse_alchemy(alchemy, next(iter(phases.values())).symbols)
    return _write_workflow("transmute", folder, common, crystals, build, settings, transformation)


def _check_sites(structure: Structure, sites: Sequence[int]) -> list[int]:
    if not sites:
        raise InputError("vacancy: name the atoms to remove, e.g. --site 0")
    for i in sites:
        if not 0 <= i < len(structure):
            raise InputError(
                f"site {i} is out of range: the structure has atoms 0 to {len(structure) - 1}"
            )
    if len(set(sites)) < len(sites):
        raise InputError(f"a site stands twice in {list(sites)}")
    if len(sites) == len(structure):
        raise InputError("vacancy: all atoms would be removed")
    return sorted(sites)


def _write_workflow(
    kind: str,
    folder: Path,
    common: Common,
    crystals: dict[str, tuple[Structure, SpaceGroup]],
    build: Callable[[Plan], None],
    settings: Callable[[dict[str, Crystal]], WorkflowSettings],
    transformation: Transformation | None = None,
) -> Workflow:
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: choose another folder")
    shelf.check_options(common.model, common.head, None, None)
    check_errors(common)
    for structure, _ in crystals.values():
        check_elements(common.model, Transformation(structure.symbols, structure.symbols))
        if common.formula_units and any(n % common.formula_units for n in counts(structure)):
            raise InputError(
                f"formula_units: {common.formula_units} do not divide the cell's composition"
            )
    if transformation is not None:
        check_elements(common.model, transformation)
    found = {
        label: Crystal(
            atoms=len(s),
            formula=reduced_formula(s),
            formula_units=common.formula_units or formula_units(s),
            space_group=g.name,
            n_ws=_n_ws(common, s),
        )
        for label, (s, g) in crystals.items()
    }
    with whole_folder(folder) as place:
        plan = Plan(place, common)
        build(plan)
        manifest.write(
            Workflow(place, kind, settings(found), tuple(plan.stages), tuple(plan.calculations))
        )
    return manifest.read(folder)


def _n_ws(common: Common, s: Structure) -> int:
    return common.n_ws or lattice_translations(s.cell, s.positions, s.symbols)
