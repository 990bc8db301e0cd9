"""What can be said to ``alchemdriver prepare``: every option once, whoever takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Option", "model_names"]


@dataclass(frozen=True)
class Option:
    """One option of a protocol, or several of one name where its meaning differs."""

    name: str  # of the flag, with _ for -; a key of <parameters> where it is one
    kind: type[Any]  # str, int, float or Path
    example: str  # what may follow the flag
    help: str = ""  # one line; of a key of <parameters> the table of keys has it
    wanted: str = ""  # 'NAME needs …' where it is mandatory and absent
    default: str | None = None
    least: int | None = None  # of whole numbers that are checked at once

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def about(self) -> str:
        from ..contract.parameters import KEYS  # numpy, which a list of protocols can do without

        return self.help or KEYS[self.name].about


def model_names(incomplete: str) -> list[str]:
    """Names of models for a shell to complete; files it completes by itself."""
    from ..contract import shelf

    return [card.name for card in shelf.catalogue() if card.name.startswith(incomplete)]


MODEL = Option("model", str, "demo", "Name or file; see 'alchemdriver models'.", "a model")
HEAD = Option("head", str, "omat_pbe")
CHARGE = Option("charge", float, "-1")
SPIN = Option("spin", float, "2")
TEMPERATURE = Option("temperature", str, "300", "K", "a temperature (K)")
TEMPERATURES = replace(TEMPERATURE, help="K; one or several, e.g. '100 300'")
PRESSURE = Option("pressure", float, "1", "bar", "a pressure (bar)")
TIMESTEP = Option("timestep", float, "2", "fs", "a timestep (fs)")
SUPERCELL = Option("supercell", str, "2x2x2", "e.g. 2x2x2", default="1x1x1")
INDEX = Option("index", int, "-1", "Frame of a file with several, from 0; -1: the last.")
BEADS = Option("beads", int, "16", "Path-integral beads.")
SEED = Option("seed", int, "20404", "Of the first run.")
REPLICAS = Option("replicas", int, "4", "Independent runs, seeds counted up.")
DTYPE = Option("dtype", str, "float64")
MASSES_FILE = Option("masses_file", Path, "masses.json")

# λ from 0 to 1: what changes, and how
ALCHEMY = Option("alchemy", str, "'Pb->Sn'", "e.g. 'Pb->Sn' or 'Fe[12]->void'", "an alchemy")
MASSES = Option("masses", str, "fixed")
INTERPOLATION = Option("interpolation", str, "linear")
TETHER = Option("tether", float, "4.2")
OTHER = Option("other", str, "chgnet-0.3.0")
SPRINGS = Option("springs", Path, "einstein.extxyz")
SCALE = Option("scale", float, "0.25", wanted="a scale T0/T")

# where λ is
LAMBDA = Option("lambda", float, "0.5", "The λ of the whole run.", "a lambda")
WINDOWS = Option("windows", int, "7", "λ at so many Gauss–Legendre nodes.")
LAMBDAS = Option("lambdas", str, "'0 0.5 1'", "λ by hand, e.g. '0 0.5 1', instead of --windows.")
SCHEDULE = Option("schedule", str, "poly9")
EQUILIBRATE = Option("equilibrate", int, "2000")
SWITCH = Option("switch", int, "3000")
CYCLES = Option("cycles", int, "4")
STEPS = Option("steps", int, "20000", "Length of each run.")

# calculations in stages
STEPS_OF_AVERAGES = replace(STEPS, help="Length of each average.")
REPLICAS_OF_SWITCHES = replace(REPLICAS, help="Independent switches of each stage; default: 4.")
ROUTE = Option("route", str, "both", "both, alchemical or frenkel-ladd")
SITE = Option("site", str, "0", "Atoms to remove, e.g. 0 or '0;5'.", "the atoms to remove")
CHEMICAL_POTENTIAL = Option(
    "chemical_potential", str, "'I=-1.5'", "Of what leaves a compound, eV per atom: 'I=-1.5'."
)
SECOND_PHASE = Option("second_phase", Path, "delta.cif", "The other phase, for ΔΔG.")
SECOND_INDEX = replace(INDEX, name="second_index", help="Frame of the other phase's file.")
SECOND_SUPERCELL = replace(SUPERCELL, name="second_supercell", help="Of the other phase.")
N_WS = Option("n_ws", int, "16", "N_WS of eq. 19; default: by spglib.", least=1)
FORMULA_UNITS = Option("formula_units", int, "8", "Default: from the elements.", least=1)
