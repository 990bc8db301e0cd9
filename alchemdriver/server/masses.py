"""Masses that follow λ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .ipi_types import Integrator, Motion, System


def set_masses(system: System, masses: np.ndarray) -> None:
    """Give *system* new masses (N,) in electron masses, and rescale its momenta to them.

    i-PI 3.3.1 declares the integrators' ``_qdt_on_m`` without dependencies, so it is tainted here;
    all other mass-dependent quantities follow by themselves.
    """
    from ipi.utils.depend import dstrip

    beads = system.beads
    current = dstrip(beads.m).copy()
    if np.array_equal(current, masses):
        return
    p = dstrip(beads.p).reshape(beads.nbeads, -1, 3)
    beads.p[:] = rescale_momenta(p, current, masses, system.motion.fixcom).reshape(beads.p.shape)
    beads.m[:] = masses
    for integrator in integrators(system.motion):
        integrator._qdt_on_m.taint()


def rescale_momenta(p: np.ndarray, m: np.ndarray, m_new: np.ndarray, fixcom: bool) -> np.ndarray:
    """Momenta (P, N, 3) for new masses (N,), with the kinetic energy exactly as before.

    p → p √(m'/m) keeps the mass-weighted momenta π = p/√m; the kinetic work is then exactly the
    analytic term of eq. 22 at any switching speed.  With a fixed centre of mass π is orthogonal to
    u = √m and must become orthogonal to u' = √m': plain rescaling would leave a total momentum,
    whose removal does uncounted work.  So π is turned by the rotation that takes û to û':
    π' = π − (û'·π)/(1 + û·û') (û + û')   for û·π = 0.
    """
    weighted = p / np.sqrt(m)[:, None]
    if fixcom:
        u, u_new = (np.sqrt(x / x.sum()) for x in (m, m_new))
        along = np.einsum("i,bic->bc", u_new, weighted) / (1.0 + u @ u_new)
        weighted = weighted - (u + u_new)[:, None] * along[:, None, :]
    turned: np.ndarray = weighted * np.sqrt(m_new)[:, None]
    return turned


def integrators(motion: Motion) -> Iterator[Integrator]:
    """Every integrator in a motion, also inside a multi-motion."""
    for sub in getattr(motion, "mlist", []):
        yield from integrators(sub)
    integrator = getattr(motion, "integrator", None)
    if integrator is not None and hasattr(integrator, "_qdt_on_m"):
        yield integrator
