"""The contract: one i-PI XML file, read by the server, the client and the analysis alike.

Everything alchemical stands in the ``<parameters>`` dictionary of the one alchemical
``<ffsocket>``; the rest is i-PI's.  This module reads and checks that file, once for everybody:
what a reader needs and is not in :class:`RunInput` belongs there.  It never runs anything and never
imports torch or ipi.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from ..errors import InputError
from ..paths import Ends, between
from ..paths import Path as LambdaPath
from ..records import Structure, Transformation
from .files import read_json
from .forces import check_forces, check_forces_of_a_switch, timeout_of
from .ipi_features import check_features, only_at_fixed_lambda
from .parameters import Parameters, check_parameters, split_parameters
from .schedule import Schedule, shape
from .springs import read_springs
from .transformation import parse_alchemy
from .xmltree import child, many, numbers, parse_xml, positive, quantity, text_of, whole
from .xyz import read_xyz


@dataclass(frozen=True)
class Socket:
    """Where the alchemical forcefield listens."""

    mode: str  # 'unix', 'inet' or 'shm'
    address: str
    port: int
    prefix: str  # of unix sockets
    timeout: float  # s, that a client may take; 0: for ever


@dataclass(frozen=True)
class PropertyFile:
    """One ``<properties>`` output; the file's own header names columns and units."""

    filename: str
    stride: int
    columns: tuple[str, ...]  # as written, e.g. 'conserved{electronvolt}'


@dataclass(frozen=True)
class ExtrasFile:
    """One ``<trajectory extra_type=…> extras`` output; i-PI appends ``_<bead>``."""

    filename: str
    stride: int
    key: str
    bead: int = -1  # the only one that is printed; -1: all


@dataclass(frozen=True)
class TrajectoryFile:
    """Another ``<trajectory>`` output; i-PI appends ``_<bead>`` and the ending of the format."""

    filename: str
    stride: int
    quantity: str  # 'positions', 'forces', …, without its unit
    format: str  # 'xyz', 'ase', 'pdb'
    bead: int  # -1: all


@dataclass(frozen=True)
class RunInput:
    """Everything that server, client and analysis need from one XML file."""

    path: Path
    parameters: Parameters
    structure: Structure  # λ = 0 species
    transformation: Transformation
    schedule: Schedule | None
    initial_masses: np.ndarray  # (N,) u
    final_masses: np.ndarray  # (N,) u, equal to the initial ones for removed atoms
    forcefield: str
    socket: Socket
    ensemble: str  # 'nve', 'nvt' or 'npt'; '' for other motions
    temperature: float | None  # K
    pressure: float | None  # bar
    timestep: float | None  # fs
    beads: int
    total_steps: int
    seed: int
    floatformat: str
    prefix: str
    properties: tuple[PropertyFile, ...]
    extras: tuple[ExtrasFile, ...]
    trajectories: tuple[TrajectoryFile, ...]
    checkpoints: tuple[str, ...]  # file names
    motion: str  # i-PI's mode: 'dynamics', 'multi', …
    noncanonical: str  # why it does not sample exp(−H/kT) of its beads; '' if it does
    fixes_centre_of_mass: bool
    held: tuple[int, ...]  # 3 i + axis of each coordinate that does not move
    barostat: str  # i-PI's mode: 'isotropic', 'flexible', …, and what of the cell it holds; or ''
    plain_verlet: bool = True  # i-PI's default splitting, OBABO, and one time step for all forces
    thermostat_tau: float | None = None  # fs; None: there is none, or it has no one time
    barostat_tau: float | None = None  # fs

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def lambda_path(self) -> LambdaPath:
        """What λ does between the end states."""
        return between(self.transformation, self.parameters.interpolation)

    @property
    def ends(self) -> Ends:
        """What the path is laid between.  Reads the springs' file: InputError."""
        p = self.parameters
        return Ends(
            self.transformation,
            self.structure,
            springs=None if p.springs is None else self.springs(),
            tether=p.tether,
            scale=p.scale,
            other=p.other,
            pressure=self.pressure if self.constant_pressure else None,
        )

    def springs(self) -> tuple[np.ndarray, np.ndarray]:
        """Anchors (N, 3) Å and constants (N,) eV/Å² of the Einstein reference.  InputError."""
        if self.parameters.springs is None:
            raise InputError(f"{self.path}: no 'springs' are given")
        return read_springs(self.folder / self.parameters.springs, self.structure)

    @property
    def kelvin(self) -> float:
        """The temperature (K) of a run that has one; InputError otherwise."""
        if self.temperature is None:
            raise InputError(f"{self.path}: expected a <temperature> in <ensemble>")
        return self.temperature

    @property
    def volume(self) -> float:
        """Å^3, of the start; of the whole run at constant volume."""
        return abs(float(np.linalg.det(self.structure.cell)))

    @property
    def thermostatted(self) -> bool:
        """Whether the ensemble has a temperature of its own, so that starts are canonical."""
        return self.ensemble not in ("", "nve")

    @property
    def relaxation_fs(self) -> float:
        """The slowest integrated relaxation time that the input shows, fs; 0 where it shows none.

        Under a Langevin thermostat energies of a crystal forget as e^(−t/τ) cos² ωt, whose integral
        is τ/2; a barostat's τ is about a period, of which a quarter is taken.
        """
        return max(0.5 * (self.thermostat_tau or 0.0), 0.25 * (self.barostat_tau or 0.0))

    @property
    def free_coordinates(self) -> np.ndarray:
        """How many coordinates of each atom move, (N,)."""
        free = np.full(len(self.structure), 3)
        np.subtract.at(free, np.array(self.held, dtype=int) // 3, 1)
        return free

    @property
    def held_atoms(self) -> frozenset[int]:
        """Atoms of which at least one coordinate does not move."""
        return frozenset(k // 3 for k in self.held)

    @property
    def interpolates_masses(self) -> bool:
        """Whether m(λ) follows λ during the run.

        Default as in the paper for classical nuclei; with P > 1 beads the ring-polymer springs
        depend on the mass, so masses stay fixed unless asked for.
        """
        if self.parameters.masses is None:
            return self.beads == 1 and self.parameters.mass_point is None
        return self.parameters.masses == "interpolate"

    @property
    def constant_pressure(self) -> bool:
        return self.ensemble == "npt"

    def masses(self, lam: float) -> np.ndarray:
        """m(λ) = (1 − λ) m_initial + λ m_final, (N,) u; paper, Methods C."""
        return (1.0 - lam) * self.initial_masses + lam * self.final_masses

    @property
    def held_masses(self) -> np.ndarray:
        """What moves where masses do not follow λ, (N,) u: the initial ones, or at *mass_point* s
        m_initial^(1 − s) m_final^s."""
        s = self.parameters.mass_point or 0.0
        return self.initial_masses ** (1.0 - s) * self.final_masses**s

    @property
    def needs_secret(self) -> bool:
        """Whether clients have to prove the run's secret.  Unix sockets are files that nobody else
        may open: they need none."""
        return self.socket.mode == "inet" and self.parameters.clients == "proven"

    def lam_at(self, step: int) -> float:
        """λ at an i-PI step."""
        return self.parameters.lam if self.schedule is None else self.schedule.at(step)

    def lam_along(self, steps: np.ndarray) -> np.ndarray:
        """λ at each of *steps* (n,)."""
        if self.schedule is None:
            return np.full(len(steps), self.parameters.lam)
        return self.schedule.along(steps)

    def output(self, filename: str) -> Path:
        """Full path of an output file, with i-PI's prefix."""
        return self.folder / (f"{self.prefix}.{filename}" if self.prefix else filename)


# --- the XML tree -------------------------------------------------------------------------------


def alchemical_forcefield(root: dict[str, Any]) -> dict[str, Any]:
    """The one ``<ffsocket>`` whose parameters name a model; InputError if none or several."""
    sockets = many(root.get("ffsocket"))
    found: list[dict[str, Any]] = []
    for ff in sockets:
        text = text_of(child(ff, "parameters"))
        if text and ({"model", "alchemy"} & split_parameters(text).keys()):
            found.append(ff)
    if len(found) != 1:
        raise InputError(
            f"expected one <ffsocket> with 'model' and 'alchemy' in its <parameters>, found "
            f"{len(found)} among {len(sockets)}"
        )
    return found[0]


@dataclass(frozen=True)
class Conditions:
    """What i-PI keeps fixed while it runs."""

    ensemble: str  # 'nve', 'nvt' or 'npt'; '' for other motions
    temperature: float | None  # K
    pressure: float | None  # bar
    timestep: float | None  # fs
    beads: int
    fixes_centre_of_mass: bool
    held: tuple[int, ...]  # 3 i + axis of each coordinate that does not move
    barostat: str  # as of RunInput


def moves_by(system: dict[str, Any]) -> Any:
    """The ``<motion>`` that decides the ensemble; of ``mode='multi'`` the one dynamics inside.

    None if there is none.  Raises InputError for several: no single ensemble is sampled then.
    """
    found = many(child(system, "motion"))
    if len(found) > 1:
        raise InputError(f"expected one <motion>, found {len(found)}")
    while found and child(found[0], "@mode") == "multi":
        inner = many(child(found[0], "motion"))
        moving = [m for m in inner if child(m, "@mode") in ("dynamics", "multi")]
        if len(moving) > 1:
            raise InputError(
                f"<motion mode='multi'> with {len(moving)} dynamics: which ensemble is sampled "
                "cannot be said; keep one"
            )
        found = moving or inner[:1]
    return found[0] if found else None


def conditions(system: dict[str, Any]) -> Conditions:
    """The conditions of a ``<system>``, of an input or a checkpoint.  InputError for bad ones."""
    motion = moves_by(system)
    dynamics = child(motion, "dynamics")
    ensemble = child(system, "ensemble")
    given = isinstance(motion, dict) and "dynamics" in motion
    # i-PI's default is left out on writing
    mode = child(dynamics, "@mode") or ("nve" if given else "")
    return Conditions(
        mode,
        positive(child(ensemble, "temperature"), "temperature", "temperature"),
        quantity(child(ensemble, "pressure"), "pressure", "pressure"),
        positive(child(dynamics, "timestep"), "time", "timestep"),
        _beads(system),
        *_constraints(motion),
        _barostat(child(dynamics, "barostat")) if mode == "npt" else "",
    )


def _plain_verlet(dynamics: Any) -> bool:
    inner = numbers(child(dynamics, "nmts"))
    return (child(dynamics, "@splitting") or "obabo") == "obabo" and all(n <= 1 for n in inner)


def _tau(node: Any) -> float | None:
    """The ``<tau>`` of a thermostat or barostat, fs; None where it has none of its own."""
    found = quantity(child(node, "tau"), "time", "tau") if isinstance(node, dict) else None
    return found if found is not None and found > 0.0 else None


def _barostat(node: Any) -> str:
    """What of the cell moves: i-PI's mode, and after a comma what is held of it."""
    held = ["hfix"] if text_of(child(node, "hfix")).strip("[] \t\n") else []
    if text_of(child(node, "vol_constraint"), "false").lower() == "true":
        held.append("vol_constraint")
    return ", ".join([child(node, "@mode") or "dummy", *held])


def _beads(system: dict[str, Any]) -> int:
    """P of an input, or of a checkpoint, which holds the beads themselves."""
    node = child(system, "beads", "@nbeads") or child(system, "initialize", "@nbeads")
    return whole(node, "<initialize nbeads>", 1, least=1)


def _constraints(motion: Any) -> tuple[bool, tuple[int, ...]]:
    """Whether the centre of mass is fixed, and the coordinates that i-PI holds still.

    With any of these i-PI frees the centre of mass, and writes whole atoms as coordinates.
    """
    fixcom = text_of(child(motion, "fixcom"), "true").lower()
    if fixcom not in ("true", "false"):
        raise InputError(f"<fixcom>: expected True or False, got '{fixcom}'")
    listed: dict[str, list[int]] = {}
    for tag in ("fixatoms", "fixatoms_dof"):
        words = text_of(child(motion, tag)).strip("[] \t\n").replace(",", " ").split()
        if not all(word.isdecimal() and len(word) < 10 for word in words):
            raise InputError(
                f"<{tag}>: expected a list of numbers such as [0, 1], got '{' '.join(words)}'"
            )
        listed[tag] = [int(word) for word in words]
    held = {3 * i + axis for i in listed["fixatoms"] for axis in range(3)}
    held |= {*listed["fixatoms_dof"]}
    return fixcom == "true" and not held, tuple(sorted(held))


def _read_masses(
    t: Transformation, parameters: Parameters, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    n = len(t.initial)
    if parameters.masses_file:
        path = folder / parameters.masses_file
        try:
            data = read_json(path)
        except InputError as err:
            raise InputError(f"masses_file {err}") from None
        try:
            initial, final = (np.array(data[k], dtype=float) for k in ("initial", "final"))
        except (ValueError, KeyError, TypeError, OverflowError):
            raise InputError(
                f"masses_file {path}: expected JSON with 'initial' and 'final', {n} numbers each"
            ) from None
        for m in (initial, final):
            if m.shape != (n,) or not np.all(np.isfinite(m) & (m > 0)):
                raise InputError(
                    f"masses_file {path}: expected {n} positive masses (u) at each end"
                )
        return initial, final
    initial = np.array([atomic_masses[atomic_numbers[s]] for s in t.initial])
    # a removed atom lives on as a tethered oscillator of its own mass
    final = np.array(
        [
            m if s is None else atomic_masses[atomic_numbers[s]]
            for m, s in zip(initial, t.final, strict=True)
        ]
    )
    return initial, final


def _outputs(root: dict[str, Any]) -> dict[str, Any]:
    """What the ``<output>`` of an input prints, by field of RunInput."""
    properties, extras, trajectories = [], [], []
    for node in many(child(root, "output", "properties")):
        stride = whole(child(node, "@stride"), "<properties stride>", 1, least=1)
        columns = tuple(c.strip() for c in text_of(node).strip("[] \n").split(",") if c.strip())
        properties.append(PropertyFile(child(node, "@filename") or "out", stride, columns))
    for node in many(child(root, "output", "trajectory")):
        stride = whole(child(node, "@stride"), "<trajectory stride>", 1, least=1)
        name, quantity = child(node, "@filename") or "traj", text_of(node).split("{")[0].strip()
        bead = whole(child(node, "@bead"), "<trajectory bead>", -1)
        if quantity == "extras":
            extras.append(ExtrasFile(name, stride, child(node, "@extra_type") or "raw", bead))
        else:
            form = child(node, "@format") or "xyz"
            trajectories.append(TrajectoryFile(name, stride, quantity, form, bead))
    prefix = child(root, "output", "@prefix")
    return {
        "prefix": "i-pi" if prefix is None else prefix,
        "properties": tuple(properties),
        "extras": tuple(extras),
        "trajectories": tuple(trajectories),
        "checkpoints": tuple(
            child(node, "@filename") or "restart"
            for node in many(child(root, "output", "checkpoint")) or [None]
        ),
    }


def read_input(path: Path | str) -> RunInput:
    """Read and check an input.  Raises InputError with one line for anything that does not fit."""
    path = Path(path)
    if path.is_dir():
        path = path / "input.xml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise InputError(f"input {path} cannot be read: {err.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"input {path} is not a text file") from None
    return interpret(parse_xml(text, str(path)), path)


def interpret(root: dict[str, Any], path: Path) -> RunInput:
    """The RunInput of a parsed ``<simulation>``; files in it are relative to *path*'s folder."""
    folder = path.parent
    ff = alchemical_forcefield(root)
    parameters = check_parameters(split_parameters(text_of(child(ff, "parameters"))))

    systems = many(root.get("system"))
    if len(systems) != 1:
        raise InputError(f"expected one <system>, found {len(systems)}; run replicas as folders")
    system = systems[0]
    check_features(root)
    check_forces(ff, system, parameters)
    files = many(child(system, "initialize", "file"))
    if len(files) != 1 or child(files[0], "@mode") != "xyz":  # 'chk' if not said
        raise InputError("expected one <file mode='xyz'> in <initialize>: it names the species")
    structure = read_xyz(
        folder / text_of(files[0]),
        child(files[0], "@units") or "automatic",
        child(files[0], "@cell_units") or "automatic",
    )
    transformation = parse_alchemy(parameters.alchemy, structure.symbols)
    _check_what_paths_take(transformation, parameters)
    if parameters.springs and not (folder / parameters.springs).is_file():
        raise InputError(f"springs file {folder / parameters.springs} does not exist")

    schedule, p = None, parameters
    if p.schedule is not None:
        lengths = [n for n in (p.equilibrate, p.switch, p.cycles) if n is not None]  # all three
        schedule = Schedule(shape(p.schedule, folder), *lengths)
    initial_masses, final_masses = _read_masses(transformation, parameters, folder)
    if transformation.word and not np.array_equal(initial_masses, final_masses):
        raise InputError(
            f"masses_file changes masses, but '{transformation.word}' changes no element: give "
            "both ends the same"
        )

    thermal = conditions(system)
    outer = many(child(system, "motion"))
    run = RunInput(
        path=path,
        parameters=parameters,
        structure=structure,
        transformation=transformation,
        schedule=schedule,
        initial_masses=initial_masses,
        final_masses=final_masses,
        forcefield=ff.get("@name", ""),
        socket=Socket(
            mode=ff.get("@mode", "inet"),
            address=text_of(ff.get("address"), "localhost"),
            port=whole(ff.get("port"), "<port>", 65535),
            prefix=root.get("@sockets_prefix", "/tmp/ipi_"),
            timeout=timeout_of(ff),
        ),
        ensemble=thermal.ensemble,
        temperature=thermal.temperature,
        pressure=thermal.pressure,
        timestep=thermal.timestep,
        beads=thermal.beads,
        total_steps=whole(root.get("total_steps"), "<total_steps>", 1000, least=1),
        seed=whole(child(root, "prng", "seed"), "<seed>", -12345),
        floatformat=root.get("@floatformat", "%16.8e"),
        **_outputs(root),
        fixes_centre_of_mass=thermal.fixes_centre_of_mass,
        held=thermal.held,
        barostat=thermal.barostat,
        motion=(child(outer[0], "@mode") if outer else None) or "dynamics",
        noncanonical=only_at_fixed_lambda(system),
        plain_verlet=_plain_verlet(child(moves_by(system), "dynamics")),
        thermostat_tau=_tau(child(moves_by(system), "dynamics", "thermostat")),
        barostat_tau=_tau(child(moves_by(system), "dynamics", "barostat")),
    )
    if run.held and run.held[-1] >= 3 * len(structure):
        raise InputError(
            f"<fixatoms> names atom {run.held[-1] // 3}, but the structure has atoms 0 to "
            f"{len(structure) - 1}"
        )
    run.lambda_path.check(run)
    _check_switching(run)
    if schedule is not None:
        check_forces_of_a_switch(ff, system, child(moves_by(system), "dynamics"))
    return run


def _check_switching(run: RunInput) -> None:
    """What a schedule needs from the rest of the input; each refusal says what to write."""
    if run.schedule is None:
        return
    if run.floatformat != "%24.16e":
        raise InputError(
            f"<simulation floatformat='{run.floatformat}'>: a schedule needs '%24.16e', or a "
            "restart loses digits"
        )
    if not run.ensemble or run.motion != "dynamics":
        raise InputError("a schedule needs <motion mode='dynamics'> with <dynamics mode=…>")
    if run.noncanonical:
        raise InputError(
            f"{run.noncanonical}: work has no free energy then; give 'lambda', which it is good "
            "for, or another thermostat ('pile_l', 'langevin', 'gle' without <C>)"
        )
    gradient = [e for e in run.extras if e.key == "dHdlambda"]
    if not gradient or gradient[0].stride != 1:
        raise InputError(
            "a schedule needs <trajectory stride='1' filename='dHdlambda' "
            "extra_type='dHdlambda'> extras </trajectory>: the work is summed over every step"
        )
    if run.total_steps != run.schedule.total_steps:
        raise InputError(
            f"<total_steps> is {run.total_steps}, but cycles * 2 * (equilibrate + switch) = "
            f"{run.schedule.total_steps}"
        )
    if not any("step" in p.columns for p in run.properties):
        raise InputError("a schedule needs <properties> with 'step': progress is read from there")
    if run.beads > 1 and run.interpolates_masses:
        raise InputError(
            "'masses: interpolate' with more than one bead leaves work in the ring-polymer "
            "springs uncounted: use 'masses: fixed'"
        )


def _check_what_paths_take(t: Transformation, p: Parameters) -> None:
    """Each of these parameters and its path go together."""
    taken = between(t, p.interpolation).takes
    for name, missing, superfluous in (
        (
            "tether",
            "alchemy removes atoms: give 'tether' (eV/Å^2), or they drift and overlap",
            "'tether' is given but no atom goes to void",
        ),
        (
            "springs",
            *2 * ("'springs' (an extxyz file) and 'alchemy: einstein->model' go together",),
        ),
        ("scale", *2 * ("'scale' (T0/T at λ = 1) and 'alchemy: model->scaled' go together",)),
        ("other", *2 * ("'other' (a model) and 'alchemy: model->other' go together",)),
    ):
        given = getattr(p, name) is not None
        if given != (taken == name):
            raise InputError(superfluous if given else missing)
