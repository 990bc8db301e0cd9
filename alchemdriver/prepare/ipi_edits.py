"""What ``adopt`` changes in a stock i-PI input; each function says what it did, one line each.

Elements are those of ``xml.etree``, with comments in their places; they are changed in place.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, fromstring

import numpy as np

from ..contract.parameters import check_parameters
from ..contract.xmltree import numbers
from ..errors import InputError
from .protocols import Protocol

# Forcefields that are a model of the atoms, which the alchemical one takes the place of.
_MODELS = [
    "ffsocket",
    "ffdirect",
    "ffmpi",
    "fflj",
    "ffyaff",
    "ffsgdml",
    "ffcommittee",
    "ffrotations",
]
_COMPONENT = (
    "pot_component",
    "forces_component",
    "virial_component",
    "extras_component",
    "extras_bias",
)
_UNNAMED = {"properties": "out", "trajectory": "traj", "checkpoint": "restart"}  # by i-PI
_OURS = ("dHdlambda", "lambda", "raw")  # extras that our clients send


def _elements(node: Element) -> list[Element]:
    """Children that are no comments."""
    return [child for child in node if isinstance(child.tag, str)]


def _text(node: Element | None, default: str = "") -> str:
    return default if node is None or not node.text else node.text.strip()


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{what}: expected a number, got '{text}'") from None


def _inside(node: Element, *tags: str) -> Element | None:
    found: Element | None = node
    for tag in tags:
        found = None if found is None else found.find(tag)
    return found


def only_system(root: Element) -> Element:
    """The one ``<system>``.  Raises InputError for several, or a template of them."""
    systems = root.findall("system")
    if len(systems) != 1 or root.find("system_template") is not None:
        raise InputError(
            f"expected one <system>, found {len(systems)}"
            + " and a template" * (root.find("system_template") is not None)
            + ": adopt each of them as an input of its own"
        )
    return systems[0]


def beads(system: Element) -> int:
    """P, of ``<beads>`` or ``<initialize>``."""
    for tag in ("initialize", "beads"):
        node = system.find(tag)
        text = "" if node is None else node.get("nbeads", "")
        if text.strip():
            if not text.strip().isdecimal() or int(text) < 1:
                raise InputError(f"<{tag} nbeads='{text}'>: expected a number of beads")
            return int(text)
    return 1


def _dynamics(system: Element) -> Element | None:
    """The one ``<dynamics>``, inside a multi-motion too."""
    return system.find(".//dynamics")


def constant_pressure(system: Element) -> bool:
    dynamics = _dynamics(system)
    return dynamics is not None and dynamics.get("mode") == "npt"


# --- the forcefield -----------------------------------------------------------------------------


def set_forcefield(root: Element, system: Element, changes: list[str]) -> None:
    """One ``<ffsocket>`` for the model in the place of those that ``<forces>`` adds up."""
    forces = system.find("forces")
    acting = [] if forces is None else forces.findall("force")
    if forces is None or not acting:
        raise InputError("expected <forces> with a <force>, found none")
    known = {n.get("name", "").strip(): n for n in _elements(root) if n.tag.startswith("ff")}
    used = []
    for force in acting:
        name = force.get("forcefield", "").strip()
        if name not in known:
            raise InputError(f"<force forcefield='{name}'>: no forcefield of that name")
        _check_replaceable(known[name], force)
        used.append(known[name])
    first = next((ff for ff in used if ff.tag == "ffsocket"), None)
    ours = Element("ffsocket") if first is None else first
    if first is None:
        ours.attrib |= {"name": used[0].get("name", "alchemy"), "mode": "unix", "pbc": "false"}
        SubElement(ours, "address").text = "alchemdriver"
        batch = used[0].find("batch_size")
        if batch is not None:
            ours.append(batch)
        root.insert(list(root).index(used[0]), ours)
    for tag, why in (
        ("parameters", ""),  # those of the former driver
        ("activelist", ""),  # all atoms, which is i-PI's default
        ("offset", "energies are the model's"),
        ("exit_on_disconnect", "a client may leave and come back"),
    ):
        for node in ours.findall(tag):
            ours.remove(node)
            if why:
                changes.append(f"<{tag}> dropped: {why}")
    for name, ff in known.items():
        if ff is not ours:
            root.remove(ff)
            if ff not in used:
                changes.append(f"forcefield '{name}' ({ff.tag}) dropped: no <force> uses it")
    if not _number(_text(ours.find("timeout"), "0"), "<timeout>") > 0:
        _set(ours, "timeout", "600")
        changes.append("<timeout> 600 s: a client that is silent for longer is dropped")
    _set(ours, "parameters", "{}")
    name = ours.get("name", "")
    if len(used) == 1:
        changes.append(f"forcefield '{name}' ({used[0].tag}): the model takes its driver's place")
    else:
        listed = ", ".join(f"'{ff.get('name')}' ({ff.tag})" for ff in used)
        changes.append(
            f"forcefields {listed}: the model takes the place of their sum, on all "
            f"{beads(system)} beads, as '{name}'"
        )
    _set_force(forces, acting, name, len(used) > 1, changes)
    _one_time_step(system, acting[0], changes)


def _check_replaceable(ff: Element, force: Element) -> None:
    name = ff.get("name", "").strip()
    if ff.tag not in _MODELS:
        raise InputError(
            f"<{ff.tag} name='{name}'> is not a model of the atoms that another could replace: "
            "take it and its <force> out"
        )
    weight = force.get("weight", "1").strip()
    if _number(weight, f"<force forcefield='{name}' weight=…>") != 1.0:
        raise InputError(
            f"<force forcefield='{name}' weight='{weight}'>: part of a force is no model's; take "
            "out what is not to act, and the weight"
        )
    active = numbers(_text(ff.find("activelist")))
    if active not in ([], [-1.0]):
        raise InputError(
            f"<activelist> of '{name}': a force on some atoms is not the model's; take it out"
        )


def _set_force(
    forces: Element, acting: list[Element], name: str, several: bool, changes: list[str]
) -> None:
    """One ``<force>``, with the extras that are interpolated."""
    ours = acting[0]
    for other in acting[1:]:
        forces.remove(other)
    ours.set("forcefield", name)
    if several:
        contracted = [f.get("nbeads") for f in acting if f.get("nbeads")]
        ours.attrib.pop("nbeads", None)
        if contracted:
            changes.append(
                "contraction (<force nbeads=…>) dropped: the model has no part that could be left "
                "to fewer beads"
            )


def _one_time_step(system: Element, force: Element, changes: list[str]) -> None:
    """Multiple time steps become the innermost one: a single force has nothing to leave out."""
    dynamics = _dynamics(system)
    for node in force.findall("mts_weights"):
        force.remove(node)
    nmts = None if dynamics is None else dynamics.find("nmts")
    if dynamics is None or nmts is None:
        return
    inner = math.prod(max(1, int(n)) for n in numbers(_text(nmts)))
    dynamics.remove(nmts)
    step = dynamics.find("timestep")
    if inner == 1 or step is None:
        return
    value = _number(_text(step), "<timestep>") / inner
    changes.append(
        f"multiple time steps: the outer step {_text(step)} is now {value:g} "
        f"{step.get('units', 'atomic_unit')}, the innermost one, for the whole force; raise "
        "<total_steps> for the same time"
    )
    step.text = repr(value)


# --- ensemble and state -------------------------------------------------------------------------


def set_ensemble(system: Element, changes: list[str]) -> None:
    """A hydrostatic ``<stress>`` becomes the pressure that it is; one that nothing uses goes."""
    dynamics, ensemble = _dynamics(system), system.find("ensemble")
    if dynamics is None or ensemble is None:
        return
    if dynamics.get("mode") != "nst":
        for node in ensemble.findall("stress"):
            ensemble.remove(node)
            changes.append(f"<stress> dropped: '{dynamics.get('mode', 'nve')}' does not use it")
        return
    stress = ensemble.find("stress")
    tensor = numbers(_text(stress))
    if stress is None or len(tensor) != 9:
        raise InputError("<dynamics mode='nst'> needs a <stress> of nine numbers in <ensemble>")
    matrix = np.array(tensor).reshape(3, 3)
    pressure = float(np.trace(matrix)) / 3.0
    if np.abs(matrix - pressure * np.eye(3)).max() > 1e-9 * max(1.0, abs(pressure)):
        raise InputError(
            f"<stress> {matrix.tolist()} is not hydrostatic: there is no G(p) of it; give a "
            "<pressure> and <dynamics mode='npt'>"
        )
    for node in ensemble.findall("pressure"):
        ensemble.remove(node)
    stress.tag, stress.text = "pressure", repr(pressure)
    stress.attrib.pop("shape", None)
    dynamics.set("mode", "npt")
    barostat = dynamics.find("barostat")
    if barostat is not None:
        barostat.set("mode", "flexible")
    changes.append(
        "ensemble 'nst' with a hydrostatic <stress>: 'npt' with that <pressure> and a 'flexible' "
        "barostat, whose enthalpy is P V exactly"
    )


def set_state(root: Element, system: Element, changes: list[str]) -> None:
    """What only decides where a run is, or how it is stopped, and names of files."""
    if system.get("prefix"):
        changes.append(
            f"<system prefix='{system.attrib.pop('prefix')}'> dropped: one system, one run"
        )
    prng = root.find("prng")
    if prng is None:
        prng = SubElement(root, "prng")
    for node in prng.findall("state"):
        prng.remove(node)
        changes.append("<state> of <prng> dropped: random numbers start from the seed")
    if prng.find("seed") is None:
        SubElement(prng, "seed").text = "20404"
        changes.append("<seed> 20404 in <prng>: the input had none")
    gone = _drop_restart(system)
    if gone:
        changes.append(f"states of a restart dropped: {', '.join(gone)}")
    prefix = root.get("sockets_prefix", "").strip()
    if prefix and not Path(prefix).parent.is_dir():
        del root.attrib["sockets_prefix"]
        changes.append(f"sockets_prefix='{prefix}' dropped: there is no such folder")
    for tag, why in (
        ("step", "a run starts at step 0"),
        ("total_time", "use 'alchemdriver run --wall-time', which resumes"),
    ):
        for node in root.findall(tag):
            if _number(_text(node, "0"), f"<{tag}>") != 0.0:
                changes.append(f"<{tag}> {_text(node)} dropped: {why}")
            root.remove(node)
    if root.attrib.pop("safe_stride", "1").strip() != "1":
        changes.append("safe_stride dropped: a restart would be steps behind its outputs")
    if root.get("floatformat") != "%24.16e":
        root.set("floatformat", "%24.16e")
        changes.append("floatformat='%24.16e': a resumed run is bit for bit the same")


def _drop_restart(system: Element) -> list[str]:
    """Take out what i-PI writes into restarts to go on from, and nothing at a start; its names."""
    gone = []
    for parent, tags in (
        ("ensemble", ("eens", "time", "hamiltonian_weights")),
        ("thermostat", ("ethermo", "s")),
        ("barostat", ("p", "ebaro")),
    ):
        for node in list(system.iter(parent)):
            for state in [n for n in node if n.tag in tags]:
                if state.tag == "hamiltonian_weights" and {*numbers(_text(state))} - {1.0}:
                    continue  # which is refused
                node.remove(state)
                gone.append(f"<{state.tag}> of <{parent}>")
    return list(dict.fromkeys(gone))


def set_arrays(system: Element, home: Path, changes: list[str]) -> None:
    """Numbers that stand in files of their own, such as a thermostat's ``<A mode='file'>``."""
    for node in (n for tag in ("A", "C") for n in system.iter(tag) if n.get("mode") == "file"):
        path = home / _text(node)
        try:
            values = np.loadtxt(path, comments="#", ndmin=1).ravel()
        except (OSError, ValueError) as err:
            raise InputError(f"<{node.tag} mode='file'>: {path} cannot be read: {err}") from None
        node.set("mode", "manual")
        node.text = "[ " + ", ".join(repr(float(x)) for x in values) + " ]"
        changes.append(f"<{node.tag} mode='file'>: the numbers of {path.name} written here")


def set_length(root: Element, parameters: Mapping[str, str], changes: list[str]) -> None:
    """``<total_steps>`` of a schedule."""
    if "schedule" not in parameters:
        return
    p = check_parameters(parameters)
    total = 2 * ((p.equilibrate or 0) + (p.switch or 0)) * (p.cycles or 0)
    _set(root, "total_steps", str(total))
    changes.append(f"<total_steps> {total}: cycles * 2 * (equilibrate + switch)")


# --- the start ----------------------------------------------------------------------------------


def set_initialize(system: Element, nbeads: int, changes: list[str]) -> None:
    """Start from start.xyz, with momenta at the ensemble's temperature."""
    for tag in ("beads", "cell"):
        for node in system.findall(tag):
            system.remove(node)
            changes.append(f"<{tag}> of <system>: start.xyz takes its place")
    initialize = system.find("initialize")
    if initialize is None:
        initialize = Element("initialize")
        system.insert(0, initialize)
    initialize.set("nbeads", str(nbeads))
    thermal = None
    for node in _elements(initialize):
        initialize.remove(node)
        if node.tag in ("velocities", "momenta") and node.get("mode", "").strip() == "thermal":
            thermal = node
        elif node.tag in ("velocities", "momenta", "gle"):
            changes.append(f"<{node.tag} mode='{node.get('mode', 'chk')}'> dropped: see velocities")
        elif node.tag not in ("masses", "labels"):
            where = f" mode='{node.get('mode')}'" if node.get("mode") else ""
            changes.append(f"<{node.tag}{where}> of <initialize>: start.xyz takes its place")
    file = SubElement(initialize, "file", mode="xyz", units="angstrom")
    file.text = "start.xyz"
    if thermal is None:
        temperature = _inside(system, "ensemble", "temperature")
        if temperature is None:
            raise InputError("expected a <temperature> in <ensemble>, to draw velocities from")
        thermal = Element("velocities", {**temperature.attrib, "mode": "thermal"})
        thermal.text = _text(temperature)
        changes.append(
            f"velocities drawn at {_text(temperature)} {temperature.get('units', 'atomic_unit')}"
        )
    thermal.tag = "velocities"
    initialize.append(thermal)


def set_masses(system: Element, masses: np.ndarray) -> None:
    """*masses* (N,) u before the velocities, which i-PI draws with the masses set so far."""
    initialize = system.find("initialize")
    assert initialize is not None  # written by set_initialize
    node = Element("masses", mode="manual", units="dalton")
    node.text = "[" + ", ".join(repr(float(m)) for m in masses) + "]"
    initialize.insert(list(initialize).index(initialize.find("velocities")), node)  # type: ignore[arg-type]


def set_parameters(root: Element, parameters: Mapping[str, str]) -> None:
    """The ``<parameters>`` of the one forcefield that has a place for them."""
    (node,) = [n for ff in root.findall("ffsocket") for n in ff.findall("parameters")]
    node.text = "{" + ", ".join(f"{k}: {v}" for k, v in parameters.items()) + "}"


# --- outputs ------------------------------------------------------------------------------------


def set_outputs(
    root: Element, protocol: Protocol, parameters: Mapping[str, str], changes: list[str]
) -> None:
    """Add what the template of *protocol* prints; drop what no client of ours sends."""
    output = root.find("output")
    if output is None:
        output = Element("output")
        root.insert(0, output)
    _drop_foreign(output, changes)
    template = fromstring(protocol.template.read_text(encoding="utf-8"))
    theirs = {node.get("filename", _UNNAMED.get(node.tag, "")) for node in _elements(output)}
    added = []
    has_checkpoint = output.find("checkpoint") is not None
    for place, node in enumerate(
        n for n in _inside(template, "output") or () if n.tag != "checkpoint"
    ):
        ours = copy.deepcopy(node)
        name = ours.get("filename", "")
        while name in theirs:
            name = f"alchemy-{name}"
        ours.set("filename", name)
        output.insert(place, ours)
        added.append(name)
    if not has_checkpoint:
        for node in template.findall("output/checkpoint"):
            output.append(copy.deepcopy(node))
            added.append(node.get("filename", "checkpoint"))
    changes.append(f"outputs added, as of {protocol.name}: {', '.join(added)}")
    force = root.find("system/forces/force")
    wanted = template.find("system/forces/force/interpolate_extras")
    assert force is not None  # set_forcefield found it
    for node in force.findall("interpolate_extras"):
        force.remove(node)
    if wanted is not None:
        force.append(copy.deepcopy(wanted))
        changes.append(f"<interpolate_extras> {_text(wanted)}: ∂H/∂λ is averaged as forces are")


def _drop_foreign(output: Element, changes: list[str]) -> None:
    """Outputs of other drivers' extras, and of single force components: there is one."""
    for node in _elements(output):
        name = node.get("filename", node.tag)
        text = _text(node)
        if node.tag == "trajectory":
            kind = node.get("extra_type", "raw")
            foreign = text == "extras" and kind not in _OURS
            if foreign or text.startswith(_COMPONENT):
                output.remove(node)
                what = f"extras '{kind}'" if foreign else text
                changes.append(f"output '{name}' dropped: {what} is the former driver's")
        elif node.tag == "properties":
            names = [n.strip() for n in text.strip("[] \n\t").split(",") if n.strip()]
            kept = [n for n in names if not n.startswith(_COMPONENT)]
            if not kept:
                output.remove(node)
                changes.append(
                    f"output '{name}' dropped: {', '.join(names)} of forces that are gone"
                )
            elif len(kept) < len(names):
                node.text = f" [ {', '.join(kept)} ] "
                gone = ", ".join(n for n in names if n not in kept)
                changes.append(f"output '{name}': {gone} dropped, of forces that are gone")


def _set(parent: Element, tag: str, text: str) -> None:
    node = parent.find(tag)
    if node is None:
        node = SubElement(parent, tag)
    node.text = text
