"""What of i-PI's input the contract understands: one list, which every input is held against.

Each element and attribute that i-PI 3.3 reads stands here once, with what we make of it: *read* by
us, *harmless* (it changes neither the ensemble nor the names of files), *only* one value (i-PI's
own default, unless said), or *not* at all.  What is refused is refused by name, and so is what
stands nowhere in the list: an option that i-PI understands and we do not would change the physics
behind the analysis' back.  ``tests/contract/test_ipi_features.py`` walks i-PI's own input classes
and fails where this list does not have all of them, options of their modes included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, did_you_mean
from .xmltree import child, many, numbers, text_of

__all__ = ["FEATURES", "Rule", "check_features", "only_at_fixed_lambda"]


@dataclass(frozen=True)
class Rule:
    """What we make of one element or attribute; exactly one of the fields below *why* is set, or
    none for what may have any value."""

    why: str  # who reads it, why it does not matter, or why it is not taken
    refused: bool = False
    only: tuple[str, ...] = ()  # the value that alone may stand there, in its ways of being written
    modes: Mapping[str, str] = field(default_factory=dict)  # value → why not; '' is taken
    inside: str = ""  # the table of what stands inside
    several: bool = False  # whether it may stand more than once


def _read(why: str, several: bool = False) -> Rule:
    return Rule(why, several=several)


def _harmless(why: str, several: bool = False) -> Rule:
    return Rule(f"harmless: {why}", several=several)


def _only(value: str, why: str, *, or_as: str | None = None) -> Rule:
    return Rule(why, only=(value,) if or_as is None else (value, or_as))


def _not(why: str) -> Rule:
    return Rule(why, refused=True, several=True)


def _modes(why: str, taken: str, not_taken: Mapping[str, str]) -> Rule:
    """taken: modes with a space between; not_taken: the others, each with its reason."""
    return Rule(why, modes={**dict.fromkeys(taken.split(" "), ""), **not_taken})


def _inside(table: str, several: bool = False) -> Rule:
    return Rule(f"see <{table}>", inside=table, several=several)


_SPEED = "how fast, not what"
_STATE = "of a restart, where i-PI writes it"
_START = "momenta at the start, which a thermostat forgets"
_BESIDE = "forces beside ours, without λ, where the path allows them"
_ANOTHER = "it belongs to another <motion mode>, which samples no ensemble of fixed conditions"
_SPECIES = "start.xyz says species, positions and cell: 'alchemdriver adopt' writes them there"
_STRESS = (
    "its enthalpy is linear in the strain about <h0>, so ΔG would depend on <h0>: give <pressure> "
    "and <dynamics mode='npt'> with <barostat mode='flexible'>"
)

# What every value in an element may carry.
VALUE = {
    "@units": _read("with the value"),
    "@shape": _harmless("of arrays"),
    "@mode": _modes(
        "where numbers stand", "manual", {"file": "numbers in another file: write them here"}
    ),
}

_THERMOSTAT = {
    "@mode": _modes(
        "canonical for P beads; with <C> see only_at_fixed_lambda",
        " langevin svr pile_l pile_g gle nm_gle nm_gle_g ffl multi",
        {"cl": "it takes heat out for noise that our forces do not have"},
    ),
    "ethermo": _harmless(_STATE),
    "tau": _harmless("friction"),
    "pile_lambda": _harmless("friction of the beads"),
    "pile_centroid_t": _only("0.0", "the centroid would have another temperature"),
    "A": _harmless("friction, without <C>"),
    "C": _read("not canonical: see only_at_fixed_lambda"),
    "s": _harmless(_STATE),
    "intau": _harmless("of mode 'cl' alone"),
    "idtau": _harmless("of mode 'cl' alone"),
    "apat": _harmless("of mode 'cl' alone"),
    "flip": _harmless("of mode 'ffl', canonical in each of its kinds"),
    "thermostat": _inside("thermostat", several=True),
}

# fmt: off
_MOVES = (
    "optimizer", "neb_optimizer", "string_optimizer", "driven_dynamics", "constrained_dynamics",
    "file", "vibrations", "normalmodes", "scp", "alchemy", "atomswap", "t_ramp", "p_ramp",
    "instanton", "al6xxx_kmc", "planetary",
)
# fmt: on

_INITIALIZED = {
    **VALUE,
    "@mode": _harmless(_START),
    "@index": _harmless(_START),
    "@bead": _harmless(_START),
}

FEATURES: dict[str, dict[str, Rule]] = {
    "simulation": {
        "@verbosity": _harmless("what i-PI prints"),
        "@threading": _harmless("of several systems"),
        "@mode": _modes("what is run", "md", {"static": "it does no dynamics"}),
        "@safe_stride": _only("1", "a restart would be steps behind its outputs"),
        "@floatformat": _read("by us: '%24.16e' under a schedule"),
        "@sockets_prefix": _read("by us: the clients' way in"),
        "prng": _inside("prng"),
        "output": _inside("output"),
        "step": _only("0", "a run starts at step 0, and resumes from its checkpoint by itself"),
        "total_steps": _read("by us"),
        "total_time": _only("0", "use 'alchemdriver run --wall-time', which resumes"),
        "smotion": _not("it couples several systems (replica exchange, metadynamics)"),
        "system": _inside("system", several=True),
        "system_template": _not("one system a run: write replicas as folders"),
        "ffsocket": _inside("ffsocket", several=True),
        "ffdirect": _harmless(_BESIDE, several=True),
        "ffmpi": _harmless(_BESIDE, several=True),
        "fflj": _harmless(_BESIDE, several=True),
        "ffdebye": _harmless(_BESIDE, several=True),
        "ffyaff": _harmless(_BESIDE, several=True),
        "ffsgdml": _harmless(_BESIDE, several=True),
        "ffdmd": _not("its forces depend on time: the ensemble is not stationary"),
        "ffplumed": _not("a bias changes the ensemble that is sampled"),
        "ffcommittee": _not("its forces are mixed by their uncertainty: no energy belongs to them"),
        "ffrotations": _not("random rotations make forces that have no energy"),
        "ffcavphsocket": _not("it adds a photon, which no analysis here knows"),
    },
    "prng": {
        "@n_threads": _only("1", "random numbers would not come in the same order again"),
        "seed": _read("by us: provenance"),
        "state": _not("random numbers start from <seed>, which the results record"),
    },
    "output": {
        "@prefix": _read("by us: names of files"),
        "properties": _inside("properties", several=True),
        "trajectory": _inside("trajectory", several=True),
        "checkpoint": _inside("checkpoint", several=True),
    },
    "properties": {
        **VALUE,
        "@filename": _read("by us"),
        "@stride": _read("by us"),
        "@flush": _harmless(_SPEED),
        "@verbosity": _harmless("comments in the file"),
    },
    "trajectory": {
        "@filename": _read("by us"),
        "@stride": _read("by us"),
        "@format": _read("by us: the ending of its name"),
        "@cell_units": _harmless("the file says it"),
        "@bead": _read("by us"),
        "@flush": _harmless(_SPEED),
        "@extra_type": _read("by us"),
    },
    "checkpoint": {
        "@filename": _read("by us: where a run resumes from"),
        "@stride": _harmless("how much a kill loses"),
        "@overwrite": _harmless("all are looked for"),
    },
    "system": {
        "@prefix": _only("", "the names of all its files would begin with it: drop it"),
        "initialize": _inside("initialize"),
        "forces": _inside("forces"),
        "ensemble": _inside("ensemble"),
        "motion": _inside("motion", several=True),  # several are refused where they are read
        "beads": _not(_SPECIES),
        "normal_modes": _inside("normal_modes"),
        "cell": _not(_SPECIES),
    },
    "initialize": {
        "@nbeads": _read("by us"),
        "positions": _not(_SPECIES),
        "velocities": _inside("velocities", several=True),
        "momenta": _inside("velocities", several=True),
        "masses": _inside("masses", several=True),
        "labels": _not(_SPECIES),
        "cell": _not(_SPECIES),
        "file": _inside("file", several=True),  # one of them, which is said where it is read
        "gle": _not("the thermostat's own momenta start at equilibrium"),
    },
    "velocities": _INITIALIZED,
    "masses": {
        **_INITIALIZED,
        "@mode": _harmless("compared with what i-PI loaded"),
        "@index": _harmless("compared with what i-PI loaded"),
        "@bead": _harmless("compared with what i-PI loaded"),
    },
    "file": {
        **VALUE,
        "@mode": _modes("the start", "xyz", {"pdb": _SPECIES, "ase": _SPECIES, "chk": _SPECIES}),
        "@bead": _only("-1", "all beads start from one structure"),
        "@cell_units": _read("by us: angstrom"),
    },
    "forces": {"force": _inside("force", several=True)},
    "force": {
        "@nbeads": _read("by us: contraction, whose work <interpolate_extras> makes right"),
        "@weight": _only("1.0", "a scaled force is not the model's: H(x, λ) is"),
        "@fd_epsilon": _harmless("of Suzuki–Chin dynamics alone"),
        "@name": _harmless("a name"),
        "@forcefield": _read("by us"),
        "mts_weights": _read("by us: λ moves in the outermost step alone"),
        "interpolate_extras": _read("by us"),
    },
    "ensemble": {
        "temperature": _read("by us"),
        "pressure": _read("by us"),
        "stress": _not(_STRESS),
        "eens": _harmless("a constant in 'conserved'"),
        "bias": _not("a bias changes the ensemble that is sampled"),
        "bias_weights": _not("a bias changes the ensemble that is sampled"),
        "hamiltonian_weights": _only(
            "[]", "of replica exchange, which couples systems", or_as="[1.0]"
        ),
        "time": _harmless("of forces that depend on time, which are refused"),
    },
    "motion": {
        "@mode": _modes(
            "what moves",
            "dynamics multi",
            {
                "vibrations": _ANOTHER,
                "minimize": "use 'alchemdriver relax'",
                "replay": "nothing moves by forces",
                "dummy": "nothing moves",
                "neb": _ANOTHER,
                "string": _ANOTHER,
                "driven_dynamics": "a field drives it: the ensemble is not stationary",
                "constrained_dynamics": "constraints change the ensemble and its corrections",
                "t_ramp": "the temperature changes during the run: use 'model->scaled'",
                "p_ramp": "the pressure changes during the run",
                "alchemy": "it exchanges isotopes, which the masses here do not follow",
                "atomswap": "it exchanges atoms, which the species here do not follow",
                "planetary": _ANOTHER,
                "instanton": _ANOTHER,
                "al-kmc": _ANOTHER,
                "scp": _ANOTHER,
                "normalmodes": _ANOTHER,
            },
        ),
        "fixcom": _read("by us"),
        "fixatoms": _read("by us"),
        "fixatoms_dof": _read("by us"),
        "dynamics": _inside("dynamics"),
        "motion": _inside("motion", several=True),
        **{name: _not(_ANOTHER) for name in _MOVES},
    },
    "dynamics": {
        "@mode": _modes(
            "the ensemble",
            "nve nvt npt",
            {
                "nst": _STRESS,
                "sc": "Suzuki–Chin beads have weights that the analysis does not know",
                "scnpt": "Suzuki–Chin beads have weights that the analysis does not know",
                "nvt-cc": "the centroid does not move",
            },
        ),
        "@splitting": _harmless("the same ensemble, to second order in the time step"),
        "thermostat": _inside("thermostat"),
        "barostat": _inside("barostat"),
        "timestep": _read("by us"),
        "nmts": _read("by us"),
    },
    "thermostat": _THERMOSTAT,
    "barostat": {
        "@mode": _modes(
            "constant pressure, of dynamics 'npt'",
            "dummy isotropic stochastic-rescaling flexible",
            {
                "anisotropic": "it is for a stress tensor: use 'flexible'",
                "sc-isotropic": "it is for Suzuki–Chin dynamics",
            },
        ),
        "thermostat": _inside("thermostat"),
        "tau": _harmless("inertia of the cell"),
        "compressibility": _harmless("how fast the volume relaxes"),
        "ebaro": _harmless(_STATE),
        "p": _harmless(_STATE),
        "h0": _harmless("of mode 'anisotropic' alone"),
        # as 'isotropic' does, these hold the shape in part; a length held is no constant pressure
        "hfix": _modes("what of the shape is held", "[offdiagonal] [xy,xz,yz] []", {}),
        "vol_constraint": _only("False", "the volume would be held: that is not constant pressure"),
    },
    "normal_modes": {
        "@transform": _harmless(_SPEED),
        "@propagator": _harmless("the same ensemble, to second order in the time step"),
        "@fft_threads": _harmless(_SPEED),
        "@fft_float32": _only("False", "digits would be lost"),
        "frequencies": _inside("frequencies"),
        "open_paths": _not("open paths have another partition function"),
        "bosons": _not("exchange has another partition function"),
        "nmts": _harmless("steps of the propagator 'bab'"),
    },
    "frequencies": {
        **VALUE,
        "@style": _modes(
            "springs and masses of the beads",
            "rpmd",
            {
                "pa-cmd": "masses of the beads would not be the atoms', which the mass leg needs",
                "wmax-cmd": "masses of the beads would not be the atoms', which the mass leg needs",
                "manual": "masses of the beads would not be the atoms', which the mass leg needs",
                "eco": "springs would not be those of P beads, which the corrections are for",
            },
        ),
    },
    "ffsocket": {
        "@name": _read("by us"),
        "@mode": _read("by us: the clients' way in"),
        "@matching": _harmless(_SPEED),
        "@pbc": _harmless("the model is periodic, and springs act on minimum images"),
        "@threaded": _harmless("i-PI wants it true"),
        "address": _read("by us: the clients' way in"),
        "port": _read("by us: the clients' way in"),
        "slots": _harmless(_SPEED),
        "exit_on_disconnect": _only("False", "a client may leave and come back"),
        "timeout": _read("by us: how long a client may be silent"),
        "max_workers": _harmless(_SPEED),
        "consolidate_messages": _harmless(_SPEED),
        "batch_size": _harmless(_SPEED),
        "latency": _harmless(_SPEED),
        "offset": _only("0.0", "energies would not be the model's"),
        "parameters": _read("by us"),
        "activelist": _only("[-1]", "the model needs all atoms"),
    },
}


# --- checking -----------------------------------------------------------------------------------


def check_features(root: dict[str, Any]) -> None:
    """Hold a ``<simulation>`` tree against the list.

    Raises InputError, one line that names the element and says why it is not taken.
    """
    _check(root, "simulation", "simulation")
    for system in many(root.get("system")):
        for motion in _motions(child(system, "motion")):
            _check_dynamics(child(motion, "dynamics"))


def _check(node: Any, table: str, tag: str) -> None:
    """node: what stands in ``<tag>``, a tree, a text or nothing."""
    rules = FEATURES[table]
    for name, value in node.items() if isinstance(node, dict) else ():
        if name in ("#text", "#comment"):
            continue
        where = f"<{tag} {name[1:]}='{value}'>" if name.startswith("@") else f"<{name}> of <{tag}>"
        if name not in rules:
            near = did_you_mean(name.lstrip("@"), [x.lstrip("@") for x in rules])
            raise InputError(f"{where} is no input of i-PI's that is known here{near}")
        rule = rules[name]
        if isinstance(value, list) and not rule.several:
            raise InputError(f"{where} must stand once, found {len(value)}")
        for part in value if isinstance(value, list) else [value]:
            _check_one(part, rule, name, where)


def _check_one(value: Any, rule: Rule, name: str, where: str) -> None:
    if rule.inside:
        _check(value, rule.inside, name)
        return
    text = text_of(value)
    if rule.refused and not _is_empty(value):
        raise InputError(f"{where} is not taken: {rule.why}")
    if rule.only and not any(_same(text, value) for value in rule.only):
        raise InputError(
            f"{where} must be {rule.only[0] or 'absent'}, got '{_short(text)}': {rule.why}"
        )
    if rule.modes:
        mode = "".join(text.split())
        if mode not in rule.modes:
            known = ", ".join(name for name, why in rule.modes.items() if name and not why)
            near = did_you_mean(mode, rule.modes)
            raise InputError(f"{where}: expected {known}, got '{_short(mode)}'{near}")
        if rule.modes[mode]:
            raise InputError(f"{where} is not taken: {rule.modes[mode]}")
    if isinstance(value, dict) and rule.several is False and not name.startswith("@"):
        _check_value(value, where)


def _is_empty(value: Any) -> bool:
    """Whether an element says nothing, as i-PI writes those that are not used: '[ ]'."""
    inside = set(value) - {"#text", "#comment", "@shape"} if isinstance(value, dict) else set()
    return not inside and not text_of(value).strip("[] \t\n")


def _check_value(value: dict[str, Any], where: str) -> None:
    """What an element may carry that holds a value and no others."""
    for name in value:
        if name in ("#text", "#comment"):
            continue
        if name not in VALUE:
            raise InputError(f"{where} holds '{name.lstrip('@')}': expected a value alone")
        _check_one(value[name], VALUE[name], name, f"{where[:-1]} {name[1:]}='{value[name]}'>")


def _same(text: str, other: str) -> bool:
    """Whether two texts are one value for i-PI: words in any case, numbers however written."""
    if text.lower() == other.lower():
        return True
    try:
        return float(text) == float(other)
    except ValueError:
        return bool(other.startswith("[")) and numbers(text) == numbers(other)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}…"


def _motions(node: Any) -> list[dict[str, Any]]:
    """All motions, those of a multi-motion too."""
    found = []
    for motion in many(node):
        if isinstance(motion, dict):
            found += [motion, *_motions(motion.get("motion"))]
    return found


def _check_dynamics(dynamics: Any) -> None:
    """What has to go together for the ensemble to be the one that is named."""
    mode = child(dynamics, "@mode") or "nve"
    if mode != "nve" and not _is_on(child(dynamics, "thermostat")):
        raise InputError(
            f"<dynamics mode='{mode}'> has no <thermostat mode=…>: no temperature is kept then"
        )
    barostat = child(dynamics, "barostat", "@mode") or "dummy"
    if mode == "npt" and barostat == "dummy":
        raise InputError(
            "<dynamics mode='npt'> has no <barostat mode='isotropic'> or another: no pressure is "
            "kept then"
        )


def _is_on(thermostat: Any) -> bool:
    mode = child(thermostat, "@mode")
    if mode == "multi":
        return any(_is_on(t) for t in many(child(thermostat, "thermostat")))
    return bool(mode)


def only_at_fixed_lambda(system: dict[str, Any]) -> str:
    """Why what a ``<system>`` samples is not the canonical ensemble of its beads; '' if it is.

    A thermostat with a covariance ``<C>`` of its own (PIGLET, a quantum thermostat) gives modes
    different temperatures, so that few beads have the positions of many.  Averages at fixed λ mean
    something then; work, and weights by exp(−H/kT), do not.
    """
    for motion in _motions(child(system, "motion")):
        dynamics = child(motion, "dynamics")
        of_cell = child(dynamics, "barostat", "thermostat")
        for thermostat in (child(dynamics, "thermostat"), of_cell):
            for one in [thermostat, *many(child(thermostat, "thermostat"))]:
                if child(one, "C") is not None and "gle" in (child(one, "@mode") or ""):
                    return (
                        f"<thermostat mode='{child(one, '@mode')}'> with <C> (PIGLET, a quantum "
                        "thermostat) keeps no single temperature"
                    )
    return ""
