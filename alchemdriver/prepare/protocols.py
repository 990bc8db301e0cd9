"""The table of protocols: what each one does, and which options it needs and takes.

A new one is one XML file in ``ipi_inputs/`` and one entry in ``PROTOCOLS``: the command, its help,
the checks and their messages follow from it.  What a protocol needs is never taken from its
template unasked, and what it does not take is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..errors import InputError, did_you_mean
from . import options as o
from .options import Option

__all__ = ["PROTOCOLS", "Protocol", "find"]


@dataclass(frozen=True)
class Protocol:
    """What ``alchemdriver prepare NAME`` writes, and what it must be told."""

    name: str  # the template is called alike
    does: str  # one line of --help
    family: str  # heading in --help
    needs: tuple[Option, ...]  # mandatory
    takes: tuple[Option, ...]
    path_integrals: bool = False
    without_beads: str = ""  # what to say to those who want them here

    @property
    def options(self) -> tuple[Option, ...]:
        return self.needs + self.takes

    def has(self, option: str) -> bool:
        return any(x.name == option for x in self.options)

    @property
    def in_stages(self) -> bool:
        """Whether it is a folder of linked runs, which have templates; it has none itself."""
        return self.family == STAGES

    @property
    def constant_pressure(self) -> bool:
        return self.has("pressure")

    @property
    def switches(self) -> bool:
        """Whether λ is driven by a schedule; else it stands still, or there is none."""
        return self.has("schedule")

    @property
    def at_several_lambdas(self) -> bool:
        """Whether it is one run for each λ."""
        return self.has("lambdas")

    @property
    def template(self) -> Path:
        """The XML file, a complete input that runs as it stands.  InputError if there is none."""
        if self.in_stages:
            raise InputError(f"{self.name} is in stages: see alchemdriver.workflow.plan")
        file = self.name.replace("-", "_") + ".xml"
        return Path(str(resources.files("alchemdriver.ipi_inputs") / file))

    # --- messages

    def missing(self, option: Option) -> str:
        return f"{self.name} needs {option.wanted}, e.g. {option.flag} {option.example}"

    def foreign(self, option: str) -> str | None:
        """Why *option*, a name, is refused here; None if no protocol has it."""
        having = [p for p in PROTOCOLS if p.has(option)]
        names = [p.name for p in having if p.in_stages == self.in_stages]
        names = names or [p.name for p in having]
        if not names:
            return None
        flag = "--" + option.replace("_", "-")
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        return f"{self.name} {self._without(option)}: {flag} belongs to {listed}"

    def _without(self, option: str) -> str:
        if option == "beads" and self.without_beads:
            return self.without_beads
        if option in _WITHOUT and not self.in_stages:
            return _WITHOUT[option]
        return f"is for {self.does}"


_STANDS_STILL = "drives no lambda"
_WITHOUT = {  # option → what a run is like that does not have it
    "pressure": "runs at constant volume",
    "steps": "takes its length from --equilibrate, --switch and --cycles",
    **dict.fromkeys(("schedule", "equilibrate", "switch", "cycles"), _STANDS_STILL),
}


def find(name: str) -> Protocol:
    """The protocol called *name*.  Raises InputError with a suggestion for an unknown one."""
    for protocol in PROTOCOLS:
        if protocol.name == name:
            return protocol
    names = [p.name for p in PROTOCOLS]
    raise InputError(
        f"unknown protocol '{name}'{did_you_mean(name, names)}; known: {', '.join(names)}"
    )


# --- the table ----------------------------------------------------------------------------------

SWITCHING = "Switching, λ from 0 to 1 and back"
EQUILIBRIUM = "Equilibrium at fixed λ"
SCALING = "Against temperature, from one absolute free energy"
QUANTUM = "Path integrals"
PLAIN = "Plain dynamics"
STAGES = "Calculations in stages"

_MODEL = (o.MODEL, o.TEMPERATURE)
_ALCHEMY = (*_MODEL, o.ALCHEMY)
_RUN = (
    o.SUPERCELL,
    o.INDEX,
    o.HEAD,
    o.CHARGE,
    o.SPIN,
    o.TIMESTEP,
    o.MASSES_FILE,
    o.DTYPE,
    o.SEED,
    o.REPLICAS,
)
# of elements, to void, or of the model
_CHANGE = (o.TETHER, o.MASSES, o.INTERPOLATION, o.OTHER, o.BEADS, *_RUN)
_SCHEDULE = (o.EQUILIBRATE, o.SWITCH, o.CYCLES, o.SCHEDULE)
_STAGES = (o.MODEL, o.TEMPERATURES, o.PRESSURE, o.TIMESTEP)
_OF_STAGES = (
    o.SUPERCELL,
    o.INDEX,
    o.HEAD,
    o.STEPS_OF_AVERAGES,
    *_SCHEDULE,
    o.REPLICAS_OF_SWITCHES,
    o.SEED,
    o.DTYPE,
    o.N_WS,
    o.FORMULA_UNITS,
)

PROTOCOLS = (
    Protocol(
        "switch-nvt",
        "ΔF at constant volume, from the works",
        SWITCHING,
        _ALCHEMY,
        (*_SCHEDULE, o.SPRINGS, o.SCALE, *_CHANGE),
    ),
    Protocol(
        "switch-npt",
        "ΔG at constant pressure, isotropic cell, from the works",
        SWITCHING,
        (*_ALCHEMY, o.PRESSURE),
        (*_SCHEDULE, o.SCALE, *_CHANGE),
    ),
    Protocol(
        "switch-npt-flexible",
        "ΔG at constant pressure, flexible cell, from the works",
        SWITCHING,
        (*_ALCHEMY, o.PRESSURE),
        (*_SCHEDULE, o.SCALE, *_CHANGE),
    ),
    Protocol(
        "nvt-fixed",
        "one λ at constant volume",
        EQUILIBRIUM,
        (*_ALCHEMY, o.LAMBDA),
        (o.STEPS, o.SPRINGS, o.SCALE, *_CHANGE),
    ),
    Protocol(
        "windows-nvt",
        "several λ at constant volume: ΔF by TI and MBAR",
        EQUILIBRIUM,
        _ALCHEMY,
        (o.WINDOWS, o.LAMBDAS, o.STEPS, o.SPRINGS, o.SCALE, *_CHANGE),
    ),
    Protocol(
        "windows-npt",
        "several λ at constant pressure: ΔG by TI and MBAR",
        EQUILIBRIUM,
        (*_ALCHEMY, o.PRESSURE),
        (o.WINDOWS, o.LAMBDAS, o.STEPS, o.SCALE, *_CHANGE),
    ),
    Protocol(
        "scaling-nvt",
        "F(T) at constant volume, by reversible scaling",
        SCALING,
        (*_MODEL, o.SCALE),
        (*_SCHEDULE, *_RUN),
        without_beads="is for classical nuclei",
    ),
    Protocol(
        "scaling-npt",
        "G(T) at constant pressure, by reversible scaling",
        SCALING,
        (*_MODEL, o.PRESSURE, o.SCALE),
        (*_SCHEDULE, *_RUN),
        without_beads="is for classical nuclei",
    ),
    Protocol(
        "switch-pimd",
        "ΔF at constant volume; then 'alchemdriver mass-leg'",
        QUANTUM,
        _ALCHEMY,
        (*_SCHEDULE, o.SPRINGS, *_CHANGE),
        path_integrals=True,
    ),
    Protocol(
        "switch-pimd-npt",
        "ΔG at constant pressure; then 'alchemdriver mass-leg'",
        QUANTUM,
        (*_ALCHEMY, o.PRESSURE),
        (*_SCHEDULE, *_CHANGE),
        path_integrals=True,
    ),
    Protocol(
        "pimd-fixed",
        "one λ at constant volume",
        QUANTUM,
        (*_ALCHEMY, o.LAMBDA),
        (o.STEPS, o.SPRINGS, *_CHANGE),
        path_integrals=True,
    ),
    Protocol(
        "pimd-fixed-npt",
        "one λ at constant pressure",
        QUANTUM,
        (*_ALCHEMY, o.PRESSURE, o.LAMBDA),
        (o.STEPS, *_CHANGE),
        path_integrals=True,
    ),
    Protocol(
        "nvt",
        "plain dynamics of the model at constant volume",
        PLAIN,
        _MODEL,
        (o.STEPS, o.BEADS, *_RUN),
    ),
    Protocol(
        "npt",
        "plain dynamics of the model, isotropic cell",
        PLAIN,
        (*_MODEL, o.PRESSURE),
        (o.STEPS, o.BEADS, *_RUN),
    ),
    Protocol(
        "npt-flexible",
        "plain dynamics of the model, flexible cell",
        PLAIN,
        (*_MODEL, o.PRESSURE),
        (o.STEPS, o.BEADS, *_RUN),
    ),
    Protocol(
        "crystal",
        "the absolute Gibbs free energy of a crystal, by Frenkel–Ladd",
        STAGES,
        _STAGES,
        (o.BEADS, *_OF_STAGES),
    ),
    Protocol(
        "vacancy",
        "the Gibbs free energy of a vacancy, by two routes",
        STAGES,
        (*_STAGES, o.SITE),
        (o.CHEMICAL_POTENTIAL, o.TETHER, o.ROUTE, o.BEADS, *_OF_STAGES),
    ),
    Protocol(
        "transmute",
        "ΔG of changing elements in one or two phases, by two routes",
        STAGES,
        (*_STAGES, o.ALCHEMY),
        (o.SECOND_PHASE, o.SECOND_SUPERCELL, o.SECOND_INDEX, o.ROUTE, *_OF_STAGES),
        without_beads="changes masses, which with beads needs a mass leg: prepare "
        "switch-pimd-npt runs and add it with 'alchemdriver mass-leg'",
    ),
)
