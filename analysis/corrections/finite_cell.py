"""What a constant pressure has beyond F(h̄) + P V̄ in a finite cell; docs/absolute_free_energies.md.

    −½ kT ln det Cov(ε)                       isotropic cell, ε = V/V̄ − 1
    −½ kT ln det Cov(ε) − kT ln(h̄_yy h̄_zz²)   flexible cell, ε = h h̄⁻¹ − 1, h upper triangular

Only differences between two ends mean something: the lengths and the measure of the cell cancel.
"""

from __future__ import annotations

import numpy as np

from ...contract.run_input import RunInput
from ...errors import AnalysisError
from ...paths.formulas import Correction, finite_cell
from ...units import BAR_EV_PER_ANGSTROM3, kT
from ..estimators.cell import CellFluctuations, from_strain, from_stress
from ..estimators.series import equilibration
from ..files.readers import read_properties
from ..files.trajectory import read_trajectory

__all__ = ["NAME", "fluctuations_of", "term_between"]

NAME = "finite cell"
# What must be printed together, the cell first.
_PRINTED = {
    "isotropic": ("volume{angstrom3}", "pressure_md{bar}"),
    "flexible": ("cell_h{angstrom}", "stress_md{bar}"),
}
_VECTOR = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # order in i-PI's rows


def fluctuations_of(run: RunInput) -> CellFluctuations:
    """Of the cell in a run at constant pressure and fixed λ.

    Left out at the start is what the volume needs to equilibrate, at least a tenth.  Raises
    AnalysisError for another run, or one too short.

    By the stress where it is printed beside the cell: pressure_md{bar} and volume{angstrom3} of an
    isotropic cell, stress_md{bar} and cell_h{angstrom} of a flexible one, one bead.  Else from the
    cells of the trajectory.
    """
    if run.schedule is not None or not run.constant_pressure:
        raise AnalysisError(f"{run.folder}: expected a run at constant pressure and fixed λ")
    if not run.fixes_centre_of_mass:
        raise AnalysisError(
            f"{run.folder}: the centre of mass is free, but the finite-cell term is for a fixed one"
        )
    printed = _stresses(run)
    cells = read_trajectory(run).cells if printed is None else printed[0]
    first = max(equilibration(np.abs(np.linalg.det(cells))), len(cells) // 10)
    try:
        if printed is None:
            return from_strain(cells[first:], run.barostat)
        pressure = (run.pressure or 0.0) * BAR_EV_PER_ANGSTROM3
        return from_stress(
            cells[first:], printed[1][first:], pressure, kT(run.kelvin), run.barostat
        )
    except AnalysisError as err:
        raise AnalysisError(f"{run.folder}: {err}") from None


def _stresses(run: RunInput) -> tuple[np.ndarray, np.ndarray] | None:
    """Cells (n, 3, 3) Å and stresses (n, 3, 3) eV/Å³ of the same steps; None if not printed."""
    wanted = _PRINTED.get(run.barostat)
    if wanted is None or run.beads > 1:
        return None
    file = next((f for f in run.properties if set(wanted) <= set(f.columns)), None)
    if file is None:
        return None
    columns = read_properties(run.output(file.filename), file.stride).columns
    cell, stress = (columns[name.split("{")[0]] for name in wanted)
    stress = stress * BAR_EV_PER_ANGSTROM3
    if run.barostat == "isotropic":
        scale = (cell / np.abs(np.linalg.det(run.structure.cell))) ** (1.0 / 3.0)
        return scale[:, None, None] * run.structure.cell, stress[:, None, None] * np.eye(3)
    h, sigma = np.zeros((2, len(cell), 3, 3))
    for k, (a, b) in enumerate(_VECTOR):
        h[:, b, a] = cell[:, k]  # rows are the lattice vectors
        sigma[:, a, b] = sigma[:, b, a] = stress[:, k]
    return h, sigma


def term_between(
    temperature: float, initial: CellFluctuations, final: CellFluctuations
) -> Correction:
    """ΔG at constant pressure minus Δ(F(h̄) + P V̄), final minus initial state, eV."""
    if initial.barostat != final.barostat:
        raise AnalysisError(
            f"the ends have different barostats ({initial.barostat}, {final.barostat})"
        )
    ends = [
        finite_cell(temperature, e.log_det, e.log_det_se, e.cell, e.barostat == "flexible")
        for e in (initial, final)
    ]
    measure = " − kT ln(h_yy h_zz^2)" if initial.barostat == "flexible" else ""
    source = (
        f"−1/2 kT ln det Cov(strain){measure}, final minus initial state, {initial.barostat} cell; "
        f"{initial.source} and {final.source}"
    )
    se = float(np.hypot(ends[0][1], ends[1][1]))
    return Correction(NAME, ends[1][0] - ends[0][0], "eV", source, se)
