"""How much a cell fluctuates: ln det of the covariance of its strain, from one equilibrium run.

Cov(ε) = kT K⁻¹, K the isothermal stiffness at the mean cell.  Where a run prints the stress beside
the cell, K is the slope of the mean stress against the strain, which a hundred times fewer frames
tell as well: the stress scatters by some kT about it, and turns over as fast as atoms do.

| symbol | here                                                                              |
|--------|-----------------------------------------------------------------------------------|
| h      | cell, columns are the lattice vectors, upper triangular as i-PI has it            |
| ε      | strain about the mean cell h̄: V/V̄ − 1 (isotropic), or h h̄⁻¹ − 1, triangular: six   |
| A(ε)   | −kT ln of the density of ε; its slope is −V̄ (σ − P), or −V (σ − P) (1 + ε)⁻ᵀ        |
| S      | covariance of ε over n frames, p × p                                              |
| ν      | independent frames: n over the statistical inefficiency of εᵀS⁻¹ε, to which ln det S
|        | responds linearly                                                                 |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import polygamma, psi

from ...errors import AnalysisError

MODES = {"isotropic": 1, "flexible": 6}  # p, by i-PI's barostat
_TRIANGLE = np.triu_indices(3)
BLOCKS = 20
_WINDOW = 8.0  # correlation times over which an autocorrelation is summed


@dataclass(frozen=True)
class CellFluctuations:
    """Of one run."""

    barostat: str  # 'isotropic' or 'flexible'
    cell: np.ndarray  # (3, 3) Å, the mean; rows are the lattice vectors, a along x, b in xy
    log_det: float  # ln det Cov(ε), its small-sample bias removed
    log_det_se: float
    source: str


def from_stress(
    cells: np.ndarray, stresses: np.ndarray, pressure: float, kt: float, barostat: str
) -> CellFluctuations:
    """From the regression of the stress on the strain: ln det Cov = p ln kT − ln det K.

    cells (n, 3, 3) Å as below; stresses (n, 3, 3), symmetric and positive under compression,
    kinetic part included, and the pressure in eV/Å³; kt in eV.  The SE is by jackknife over 20
    blocks of the run.  Raises AnalysisError for too few rows, or a slope that is not stable.
    """
    mean, strain = _strain(cells, barostat)
    n, p = strain.shape
    if n < 10 * BLOCKS:
        raise AnalysisError(f"cell stiffness: {n} rows of stress are too few, give {10 * BLOCKS}")
    h = np.asarray(cells, dtype=float).transpose(0, 2, 1)
    net = stresses - pressure * np.eye(3)
    if barostat == "isotropic":
        slope = -np.linalg.det(h).mean() * np.trace(net, axis1=1, axis2=2)[:, None] / 3.0
    else:
        inverse = mean.T @ np.linalg.inv(h)  # (1 + ε)⁻¹
        slope = -np.linalg.det(h)[:, None, None] * net @ inverse.transpose(0, 2, 1)
        slope = slope[:, _TRIANGLE[0], _TRIANGLE[1]]
    blocks = np.array_split(np.arange(n), BLOCKS)
    whole = _log_det_slope(strain, slope)
    left_out = [_log_det_slope(np.delete(strain, b, 0), np.delete(slope, b, 0)) for b in blocks]
    se = float(np.sqrt((BLOCKS - 1) * np.var(left_out)))
    return CellFluctuations(
        barostat, mean, float(p * np.log(kt)) - whole, se, f"stress against strain, {n} rows"
    )


def _log_det_slope(strain: np.ndarray, slope: np.ndarray) -> float:
    """ln det K of the least-squares line through (strain, slope), both (n, p)."""
    x, y = strain - strain.mean(axis=0), slope - slope.mean(axis=0)
    k = np.linalg.solve(x.T @ x, x.T @ y)
    values = np.linalg.eigvalsh(0.5 * (k + k.T))
    if values[0] <= 0.0:
        raise AnalysisError("cell stiffness: stress against strain has no stable slope: run longer")
    return float(np.log(values).sum())


def _strain(cells: np.ndarray, barostat: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean cell (3, 3) and strain (n, p) about it.  Raises AnalysisError for another barostat."""
    if barostat not in MODES:
        raise AnalysisError(
            f"cell fluctuations: expected a barostat that is {' or '.join(MODES)}, got {barostat}"
        )
    cells = np.asarray(cells, dtype=float)
    mean = cells.mean(axis=0)
    if barostat == "isotropic":
        volumes = np.abs(np.linalg.det(cells))
        return mean, (volumes / volumes.mean() - 1.0)[:, None]
    away = np.linalg.solve(mean, cells).transpose(0, 2, 1) - np.eye(3)  # h h̄⁻¹ − 1
    return mean, away[:, _TRIANGLE[0], _TRIANGLE[1]]


def from_strain(cells: np.ndarray, barostat: str) -> CellFluctuations:
    """From equilibrated *cells* (n, 3, 3) Å of one run, rows the lattice vectors as i-PI has them.

    S of ν independent Gaussian frames follows Wishart's distribution:
    E ln det S = ln det Cov + Σ_{i<p} ψ((ν − i)/2) + p ln(2/ν), variance Σ ψ'((ν − i)/2)
    (Anderson, An Introduction to Multivariate Statistical Analysis, 7.5).  That S is taken about
    the mean of the run itself, which correlation makes less certain, is counted mode by mode.
    Raises AnalysisError for another barostat, and for fewer than 2 p independent frames.
    """
    mean, strain = _strain(cells, barostat)
    n, p = strain.shape
    strain = strain - strain.mean(axis=0)
    covariance = strain.T @ strain / n
    values, axes = np.linalg.eigh(covariance)
    if n < 2 * p or values[0] <= 0.0:
        raise AnalysisError(f"cell fluctuations: {n} frames of the cell are too few for {p} modes")
    white = strain @ axes / np.sqrt(values)  # [frame, mode]
    independent = n / max(1.0, inefficiency((white**2).sum(axis=1)[:, None]))
    of_mean = inefficiency(white) / n  # variance of the run's own mean, in that of ε
    if independent < 2 * p or of_mean > 0.5:
        raise AnalysisError(
            f"cell fluctuations: {n} frames of the cell hold {independent:.0f} independent ones, "
            f"at least {2 * p} are needed for {p} modes: run longer at constant pressure"
        )
    halves = 0.5 * (independent - np.arange(p))
    bias = float(psi(halves).sum() + p * np.log(2.0 / independent) + p * np.log1p(-of_mean))
    return CellFluctuations(
        barostat,
        mean,
        float(np.log(values).sum()) - bias,
        float(np.sqrt(polygamma(1, halves).sum())),
        f"{independent:.0f} independent cells",
    )


def inefficiency(series: np.ndarray) -> float:
    """1 + 2 Σ ρ(t) of *series* (n, k), ρ the mean of the k autocorrelations; summed to the first
    window of eight times the sum so far.

    The first zero of ρ does not end it: cells oscillate.  What ρ loses to the mean of a finite
    series is given back as by Wolff, Comput. Phys. Commun. 156, 143 (2004), eq. 49.
    """
    x = np.asarray(series, dtype=float) - np.mean(series, axis=0)
    n = len(x)
    power = np.abs(np.fft.rfft(x, 2 * n, axis=0)) ** 2
    rho = np.fft.irfft(power, axis=0)[: max(1, n // 2)]
    sums = 2.0 * np.cumsum((rho / rho[0]).mean(axis=1)) - 1.0
    done = np.arange(len(sums)) >= 0.5 * _WINDOW * np.maximum(sums, 1.0)
    window = int(np.argmax(done)) if done.any() else int(np.argmax(sums))
    return float(max(0.1, sums[window])) * (1.0 + (2 * window + 1) / n)
