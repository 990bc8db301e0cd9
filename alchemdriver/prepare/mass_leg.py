"""The mass leg of a path-integral transformation: equilibrium runs at intermediate masses.

With P > 1 beads the ring-polymer springs depend on the masses, so U is switched at the initial
masses and the masses change afterwards, in the final state (λ = 1), by thermodynamic integration
along ln m_i(s) = (1 − s) ln m_i^(i) + s ln m_i^(f), s from 0 to 1:

    F(m^(f)) − F(m^(i)) = −∫₀¹ ds Σ_i ln(m_i^(f)/m_i^(i)) ⟨K_cv,i⟩_s

with the centroid-virial kinetic energy K_cv,i of atom i.  Along ln m the integrand is flat for
classical nuclei and ∝ exp(−s/2 ln(m^(f)/m^(i))) for cold ones, so a few Gauss–Legendre points are
exact to far below any statistical error.  ``analysis/corrections/mass_leg.py`` evaluates the
integral.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ..contract import shelf
from ..contract.files import whole_folder
from ..contract.layout import FOLDER, KINETIC
from ..contract.nodes import gauss_legendre
from ..contract.run_input import RunInput, interpret
from ..contract.xmltree import child, parse_xml, text_of
from ..errors import InputError
from . import tree
from .render import Settings, render, sign

__all__ = ["leg_folder", "write_points"]

STRIDE = 5  # steps between rows of K_cv
_ROWS: tree.Tree = {
    "@stride": str(STRIDE),
    "@filename": KINETIC,
    "@format": "xyz",
    "#text": f"{KINETIC}{{electronvolt}}",
}
_FILES = ("model", "other", "springs", "masses_file")  # parameters that may name files
_SWITCHING = ("schedule", "equilibrate", "switch", "cycles", "lambda", "masses", "digest")


def leg_folder(run: Path) -> Path:
    """Where the mass leg of the run folder, or the folder of replicas, *run* belongs."""
    return Path(run) / FOLDER


def write_points(
    run: RunInput, folder: Path, points: int, steps: int, seed: int | None = None
) -> list[Path]:
    """Write ``folder/point-1`` … for *run*; returns the folders.

    Each is *run*'s own input at λ = 1 and fixed masses, with K_cv printed for every atom, *steps*
    long.  seed: of the first point, by default *run*'s plus 1000; the others count up.  Raises
    InputError if there is no mass to change, for one bead (there eq. 22 is exact), or if points are
    there already.
    """
    if run.beads == 1:
        raise InputError(f"{run.path}: one bead: the mass term is analytic (eq. 22), no leg needed")
    if np.array_equal(run.initial_masses, run.final_masses):
        raise InputError(f"{run.path}: no mass changes, no leg needed")
    if points < 1 or steps < 1:
        raise InputError(f"expected at least 1 point and 1 step, got {points} and {steps}")
    if any(folder.glob("point-*")):
        raise InputError(f"{folder} already holds points: remove it, or choose another folder")
    seed = run.seed + 1000 if seed is None else seed
    root = parse_xml(run.path.read_text(encoding="utf-8"), str(run.path))
    tree.add_trajectory(root, _ROWS)
    kept = {k: v for k, v in tree.get_parameters(root).items() if k not in _SWITCHING}
    start = text_of(child(root, "system", "initialize", "file"))
    names = {key: Path(kept[key]).name for key in _FILES if key in kept}
    with whole_folder(folder) as place:
        for k, s in enumerate(gauss_legendre(points)[0]):
            target = place / f"point-{k + 1}"
            target.mkdir()
            for source in _files(run, start):
                shutil.copyfile(source, target / source.name)
            parameters = {**kept, **names, "lambda": "1.0", "mass_point": repr(float(s))}
            settings = Settings(total_steps=steps, seed=seed + k)
            path = target / "input.xml"
            masses = interpret(render(root, start, parameters, settings), path).held_masses
            tree.write_xml(path, render(root, start, parameters, settings, masses))
            sign(path)
    return [folder / f"point-{k + 1}" for k in range(points)]


def _files(run: RunInput, start: str) -> list[Path]:
    """The files that the input needs; a model that is a name and no file stays where it is."""
    p = run.parameters
    files = [run.folder / name for name in (start, p.springs, p.masses_file) if name]
    return files + (shelf.files_of(run.folder / p.model) if shelf.is_file(p.model) else [])
