"""The contract: one i-PI XML file, read by the server, the client and the analysis alike.

Everything alchemical stands in the ``<parameters>`` dictionary of the one alchemical
``<ffsocket>``; the rest is i-PI's.  This module reads and checks that file and knows the keys
(``KEYS``).  It never runs anything and never imports torch or ipi.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from .errors import InputError, did_you_mean
from .records import Structure, Transformation
from .schedule import Schedule, shape
from .transformation import parse_alchemy
from .xmltree import child, many, numbers, parse_xml, positive, quantity, text_of, whole
from .xyz import read_xyz

KEYS = {
    "model": "embedded name, foundation name, or path relative to the XML",
    "alchemy": "'Pb->Sn', 'Fe[12]->void', 'einstein->model', 'model->scaled' or 'none'",
    "springs": "extxyz file with positions and spring_constant (eV/Å^2): the Einstein reference",
    "tether": "spring constant (eV/Å^2) of atoms going to void",
    "scale": "final scale T0/T of 'model->scaled', e.g. 0.25 from 300 K to 1200 K",
    "lambda": "fixed λ, or the initial value under a schedule",
    "schedule": "poly9, linear, or a table file (tau, lambda)",
    "equilibrate": "steps of each hold",
    "switch": "steps of each switch",
    "cycles": "forward/backward pairs",
    "masses": "interpolate or fixed",
    "interpolation": "alchemical or linear",
    "dtype": "float64 or float32",
    "digest": "written by prepare and run",
    "masses_file": "JSON with 'initial' and 'final' masses (u), one per atom",
    "mass_point": "place on the mass leg, 0 (initial masses) to 1 (final), ln m linear",
}
CONSTANT_PRESSURE = ("npt", "nst", "nph", "scnpt")  # ensembles of i-PI
_CHOICES = {
    "masses": ("interpolate", "fixed"),
    "interpolation": ("alchemical", "linear"),
    "dtype": ("float64", "float32"),
}


@dataclass(frozen=True)
class Parameters:
    """The checked ``<parameters>`` dictionary; None means that the key is absent."""

    model: str
    alchemy: str
    lam: float
    schedule: str | None
    equilibrate: int | None  # steps
    switch: int | None  # steps
    cycles: int | None
    masses: str | None
    interpolation: str
    dtype: str
    springs: str | None
    tether: float | None  # eV/Å^2
    scale: float | None  # s at λ = 1, of model->scaled
    digest: str | None
    masses_file: str | None
    mass_point: float | None  # 0 to 1


@dataclass(frozen=True)
class Socket:
    """Where the alchemical forcefield listens."""

    mode: str  # 'unix', 'inet' or 'shm'
    address: str
    port: int
    prefix: str  # of unix sockets


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
    ensemble: str  # 'nve', 'nvt', 'npt', 'nst', …; '' for other motions
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

    @property
    def folder(self) -> Path:
        return self.path.parent

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
        return self.ensemble in CONSTANT_PRESSURE

    def masses(self, lam: float) -> np.ndarray:
        """m(λ) = (1 − λ) m_initial + λ m_final, (N,) u; paper, Methods C."""
        return (1.0 - lam) * self.initial_masses + lam * self.final_masses

    @property
    def held_masses(self) -> np.ndarray:
        """What moves where masses do not follow λ, (N,) u: the initial ones, or at *mass_point* s
        m_initial^(1 − s) m_final^s."""
        s = self.parameters.mass_point or 0.0
        return self.initial_masses ** (1.0 - s) * self.final_masses**s

    def lam_at(self, step: int) -> float:
        """λ at an i-PI step."""
        return self.parameters.lam if self.schedule is None else self.schedule.at(step)

    def output(self, filename: str) -> Path:
        """Full path of an output file, with i-PI's prefix."""
        return self.folder / (f"{self.prefix}.{filename}" if self.prefix else filename)


def _number(text: str, key: str, kind: type = float):
    try:
        value = kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise InputError(f"parameter '{key}': expected {expected}, got '{text}'") from None
    if kind is float and not np.isfinite(value):
        raise InputError(f"parameter '{key}': expected a finite number, got '{text}'")
    return value


def split_parameters(text: str) -> dict[str, str]:
    """``{a: 1, b: 2}`` as a dictionary of strings, in i-PI's own way of splitting."""
    body = text.strip()
    if not body.isascii():
        wrong = next(c for c in body if not c.isascii())
        raise InputError(f"<parameters> must be ASCII for i-PI's socket protocol, found '{wrong}'")
    if not (body.startswith("{") and body.endswith("}")):
        raise InputError("<parameters> must be a dictionary {key: value, …}")
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in body[1:-1].split(","))):
        key, colon, value = (x.strip() for x in item.partition(":"))
        if not colon or not value:
            raise InputError(f"<parameters>: expected 'key: value', got '{item}'")
        if key in values:
            raise InputError(f"<parameters>: key '{key}' stands twice")
        values[key] = value
    return values


def check_parameters(values: Mapping[str, str]) -> Parameters:
    """Validate the dictionary.  Raises InputError, with a suggestion for misspelt keys."""
    for key in values:
        if key not in KEYS:
            raise InputError(
                f"unknown parameter '{key}'{did_you_mean(key, KEYS)}; known: {', '.join(KEYS)}"
            )
    for key in ("model", "alchemy"):
        if key not in values:
            raise InputError(f"parameter '{key}' is missing: {KEYS[key]}")
    for key, allowed in _CHOICES.items():
        if key in values and values[key] not in allowed:
            raise InputError(
                f"parameter '{key}': expected {' or '.join(allowed)}, got '{values[key]}'"
                f"{did_you_mean(values[key], allowed)}"
            )
    schedule = values.get("schedule")
    lengths = {
        key: _number(values[key], key, int) if key in values else None
        for key in ("equilibrate", "switch", "cycles")
    }
    if schedule is None and any(v is not None for v in lengths.values()):
        given = ", ".join(k for k, v in lengths.items() if v is not None)
        raise InputError(f"{given} given without a schedule: add 'schedule: poly9'")
    if schedule is not None:
        for key in ("equilibrate", "switch"):
            if lengths[key] is None:
                raise InputError(f"parameter '{key}' is missing: a schedule needs {KEYS[key]}")
        if lengths["cycles"] is None:
            lengths["cycles"] = 1
    if schedule is None and "lambda" not in values:
        raise InputError("give either 'lambda' (fixed) or 'schedule' (switching)")
    lam = _number(values.get("lambda", "0"), "lambda")
    if not 0.0 <= lam <= 1.0:
        raise InputError(f"parameter 'lambda': expected a number in [0, 1], got {lam:g}")
    if schedule is not None and lam != 0.0:
        raise InputError(f"parameter 'lambda': a schedule starts at 0, got {lam:g}; drop the key")
    tether = _number(values["tether"], "tether") if "tether" in values else None
    if tether is not None and tether <= 0:
        raise InputError(f"parameter 'tether': expected a positive eV/Å^2, got {tether:g}")
    scale = _number(values["scale"], "scale") if "scale" in values else None
    if scale is not None and (scale <= 0 or scale == 1):
        raise InputError(
            f"parameter 'scale': expected a positive number other than 1 (T0/T), got {scale:g}"
        )
    point = _number(values["mass_point"], "mass_point") if "mass_point" in values else None
    if point is not None:
        if not 0.0 <= point <= 1.0:
            raise InputError(f"parameter 'mass_point': expected a number in [0, 1], got {point:g}")
        if schedule is not None or values.get("masses") == "interpolate":
            raise InputError("'mass_point' is for runs at fixed lambda and fixed masses")
    return Parameters(
        model=values["model"],
        alchemy=values["alchemy"],
        lam=lam,
        schedule=schedule,
        masses=values.get("masses"),
        interpolation=values.get("interpolation", "alchemical"),
        dtype=values.get("dtype", "float64"),
        springs=values.get("springs"),
        tether=tether,
        scale=scale,
        digest=values.get("digest"),
        masses_file=values.get("masses_file"),
        mass_point=point,
        **lengths,
    )


# --- the XML tree -------------------------------------------------------------------------------


def alchemical_forcefield(root: dict) -> dict:
    """The one ``<ffsocket>`` whose parameters name a model; InputError if none or several."""
    sockets = many(root.get("ffsocket"))
    found = []
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

    ensemble: str  # 'nve', 'nvt', 'npt', 'nst', …; '' for other motions
    temperature: float | None  # K
    pressure: float | None  # bar
    timestep: float | None  # fs


def conditions(system: dict) -> Conditions:
    """The conditions of a ``<system>``, of an input or a checkpoint.  InputError for bad ones."""
    motion = many(child(system, "motion"))
    dynamics = child(motion[0], "dynamics") if motion else None
    ensemble = child(system, "ensemble")
    given = bool(motion) and isinstance(motion[0], dict) and "dynamics" in motion[0]
    return Conditions(
        child(dynamics, "@mode") or ("nve" if given else ""),  # i-PI's default, left out on writing
        positive(child(ensemble, "temperature"), "temperature", "temperature"),
        quantity(child(ensemble, "pressure"), "pressure", "pressure"),
        positive(child(dynamics, "timestep"), "time", "timestep"),
    )


def _read_masses(
    t: Transformation, parameters: Parameters, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    n = len(t.initial)
    if parameters.masses_file:
        path = folder / parameters.masses_file
        try:
            data = json.loads(path.read_text())
            initial, final = (np.array(data[k], dtype=float) for k in ("initial", "final"))
        except OSError as err:
            raise InputError(f"masses_file {path} cannot be read: {err.strerror}") from None
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


def _outputs(root: dict) -> tuple[str, tuple[PropertyFile, ...], tuple[ExtrasFile, ...]]:
    properties, extras = [], []
    for node in many(child(root, "output", "properties")):
        stride = whole(child(node, "@stride"), "<properties stride>", 1, least=1)
        columns = tuple(c.strip() for c in text_of(node).strip("[] \n").split(",") if c.strip())
        properties.append(PropertyFile(child(node, "@filename") or "out", stride, columns))
    for node in many(child(root, "output", "trajectory")):
        if text_of(node).split("{")[0].strip() == "extras":
            stride = whole(child(node, "@stride"), "<trajectory stride>", 1, least=1)
            name, key = child(node, "@filename") or "traj", child(node, "@extra_type") or "raw"
            extras.append(ExtrasFile(name, stride, key))
    prefix = child(root, "output", "@prefix")
    return "i-pi" if prefix is None else prefix, tuple(properties), tuple(extras)


def read_input(path: Path | str) -> RunInput:
    """Read and check an input.  Raises InputError with one line for anything that does not fit."""
    path = Path(path)
    if path.is_dir():
        path = path / "input.xml"
    try:
        text = path.read_text()
    except OSError as err:
        raise InputError(f"input {path} cannot be read: {err.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"input {path} is not a text file") from None
    return interpret(parse_xml(text, str(path)), path)


def interpret(root: dict, path: Path) -> RunInput:
    """The RunInput of a parsed ``<simulation>``; files in it are relative to *path*'s folder."""
    folder = path.parent
    ff = alchemical_forcefield(root)
    parameters = check_parameters(split_parameters(text_of(child(ff, "parameters"))))

    systems = many(root.get("system"))
    if len(systems) != 1 or "system_template" in root:
        raise InputError(f"expected one <system>, found {len(systems)}; run replicas as folders")
    system = systems[0]
    files = [
        f
        for f in many(child(system, "initialize", "file"))
        if not isinstance(f, dict) or f.get("@mode", "chk") == "xyz"
    ]
    if len(files) != 1:
        raise InputError("expected one <file mode='xyz'> in <initialize>: it names the species")
    structure = read_xyz(folder / text_of(files[0]))
    transformation = parse_alchemy(parameters.alchemy, structure.symbols)
    if transformation.voids and parameters.tether is None:
        raise InputError("alchemy removes atoms: give 'tether' (eV/Å^2), or they drift and overlap")
    if not transformation.voids and parameters.tether is not None:
        raise InputError("'tether' is given but no atom goes to void")
    if transformation.einstein != (parameters.springs is not None):
        raise InputError("'springs' (an extxyz file) and 'alchemy: einstein->model' go together")
    if parameters.springs and not (folder / parameters.springs).is_file():
        raise InputError(f"springs file {folder / parameters.springs} does not exist")

    schedule = None
    if parameters.schedule is not None:
        if transformation.plain:
            raise InputError("'alchemy: none' changes nothing: remove 'schedule', or say what does")
        schedule = Schedule(
            shape(parameters.schedule, folder),
            parameters.equilibrate,
            parameters.switch,
            parameters.cycles,
        )
    initial_masses, final_masses = _read_masses(transformation, parameters, folder)

    thermal = conditions(system)
    prefix, properties, extras = _outputs(root)
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
        ),
        ensemble=thermal.ensemble,
        temperature=thermal.temperature,
        pressure=thermal.pressure,
        timestep=thermal.timestep,
        beads=whole(child(system, "initialize", "@nbeads"), "<initialize nbeads>", 1, least=1),
        total_steps=whole(root.get("total_steps"), "<total_steps>", 1000, least=1),
        seed=whole(child(root, "prng", "seed"), "<seed>", -12345),
        floatformat=root.get("@floatformat", "%16.8e"),
        prefix=prefix,
        properties=properties,
        extras=extras,
    )
    _check_switching(run)
    _check_scaled(run)
    if schedule is not None:
        _check_forces(ff, system)
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
    if not run.ensemble:
        raise InputError("a schedule needs <motion mode='dynamics'> with <dynamics mode=…>")
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


def _check_scaled(run: RunInput) -> None:
    """What reversible scaling needs: s, a thermostat, one bead, a hydrostatic pressure."""
    if run.transformation.scaled != (run.parameters.scale is not None):
        raise InputError("'scale' (T0/T at λ = 1) and 'alchemy: model->scaled' go together")
    if not run.transformation.scaled:
        return
    if run.beads > 1:
        raise InputError(
            f"model->scaled is for classical nuclei, got {run.beads} beads: at another temperature "
            "the ring-polymer springs differ too"
        )
    if run.ensemble not in ("nvt", "npt") or run.temperature is None:
        raise InputError(
            "model->scaled needs <dynamics mode='nvt'> or 'npt' and a <temperature>, got "
            f"'{run.ensemble}': a stress tensor cannot be scaled by a volume term"
        )
    if run.constant_pressure and run.pressure is None:
        raise InputError("model->scaled at constant pressure needs a <pressure> to scale P V with")


def _check_forces(ff: dict, system: dict) -> None:
    """What a schedule needs from the socket, the force components and the time stepping."""
    try:
        timeout = float(text_of(ff.get("timeout"), "0"))
    except ValueError:
        timeout = 0.0
    if not timeout > 0:
        raise InputError(
            "<timeout> of the <ffsocket> must be positive, or a hung client hangs the run forever: "
            "give seconds, e.g. <timeout>600</timeout>"
        )
    name = ff.get("@name")
    forces = many(child(system, "forces", "force"))
    ours = [f for f in forces if isinstance(f, dict) and f.get("@forcefield") == name]
    if not ours or any("dHdlambda" not in text_of(f.get("interpolate_extras")) for f in ours):
        raise InputError(
            f"a schedule needs <force forcefield='{name}'> with <interpolate_extras>[dHdlambda]"
            "</interpolate_extras>, or weights and contraction miss the work"
        )
    nmts = numbers(child(many(child(system, "motion"))[0], "dynamics", "nmts"))
    weights = [numbers(f.get("mts_weights")) for f in ours]
    outermost = nmts[:1] == [1.0] and all(w and not any(w[1:]) for w in weights)
    if any(n > 1 for n in nmts) and not outermost:
        raise InputError(
            f"multiple time steps (<nmts>) under a schedule: forcefield '{name}' must act in the "
            "outermost one alone (<nmts>[1, 4]</nmts> with <mts_weights>[1, 0]</mts_weights>), or "
            "lambda jumps inside the outer step, where eq. 9 does not see it"
        )


def digest(run: RunInput, model_digest: str) -> str:
    """Fingerprint of what server, client and analysis must agree on.

    Covers the order of species, the transformation, both sets of masses, interpolation, tether,
    the bytes of the springs file, the anchors of tethers, the final scale and the pressure that is
    scaled with it, and *model_digest* (sha256 of the model).
    The prefix keeps i-PI from reading a digest such as 1e5… as a number.
    """
    t, p = run.transformation, run.parameters
    springs = None
    if p.springs:
        springs = hashlib.sha256((run.folder / p.springs).read_bytes()).hexdigest()
    content = {
        "initial": t.initial,
        "final": t.final,
        "einstein": t.einstein,
        "model": model_digest,
        "initial_masses": [repr(float(m)) for m in run.initial_masses],
        "final_masses": [repr(float(m)) for m in run.final_masses],
        "interpolation": p.interpolation,
        "tether": p.tether,
        "springs": springs,
    }
    if t.scaled:
        content["scale"] = repr(p.scale)
        if run.constant_pressure:
            content["scaled_pressure"] = repr(run.pressure)
    if t.voids or t.einstein:  # the cell that anchors refer to
        content["cell"] = [repr(float(x)) for x in run.structure.cell.ravel()]
    if t.voids:
        anchors = run.structure.positions[list(t.voids)]
        content["anchors"] = [repr(float(x)) for x in anchors.ravel()]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()[:32]
