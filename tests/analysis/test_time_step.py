"""The time step's share of the work: against the exact statistics of the discrete dynamics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver.analysis import analyze
from alchemdriver.analysis.corrections.time_step import NAME, time_step_terms
from alchemdriver.contract.run_input import read_input
from alchemdriver.paths import formulas
from alchemdriver.units import DALTON_ANGSTROM2_PER_FS2_EV, kT

T, M = 300.0, 63.546  # K, u


def variance(k: float, dt: float, tau: float) -> float:
    """⟨x²⟩ in Å² of i-PI's OBABO on one oscillator, from the linear map's own fixed point."""
    m = M * DALTON_ANGSTROM2_PER_FS2_EV
    kick, drift = np.array([[1, 0], [-k * dt / 2, 1]]), np.array([[1, dt / m], [0, 1]])
    half = np.exp(-dt / (2 * tau))  # half a step of the thermostat on the momentum
    damp, noise = np.diag([1.0, half]), np.diag([0.0, (1 - half**2) * m * kT(T)])
    inner = kick @ drift @ kick
    step = damp @ inner @ damp
    added = damp @ inner @ noise @ inner.T @ damp + noise
    covariance = np.linalg.solve(np.eye(4) - np.kron(step, step), added.ravel())
    return float(covariance[0])


def test_the_term_is_the_shift_of_the_discrete_dynamics():
    """∫⟨∂H/∂λ⟩ dλ of the discrete map minus ½ kT ln(k_f/k_i), for an oscillator of 2 → 6 eV/Å²."""
    k, dt = (2.0, 6.0), 4.0
    nodes, weights = np.polynomial.legendre.leggauss(12)
    work = sum(
        w / 2 * 0.5 * (k[1] - k[0]) * variance(k[0] + (x + 1) / 2 * (k[1] - k[0]), dt, 100.0)
        for x, w in zip(nodes, weights, strict=True)
    )
    shift = work - 0.5 * kT(T) * np.log(k[1] / k[0])
    squares = np.array(k) / M / DALTON_ANGSTROM2_PER_FS2_EV
    found = formulas.time_step(T, dt, squares[1] - squares[0])
    following = kT(T) / 64 * dt**4 * (squares[1] ** 2 - squares[0] ** 2)
    assert shift == pytest.approx(found + following, rel=2e-4)
    assert following < 0.02 * found


def test_forces_that_are_printed_give_the_term(tmp_path):
    """Four oscillators through real i-PI: Σω² of both ends, by ⟨Σ f²/m⟩/kT."""

    def printed(text: str) -> str:
        line = '<trajectory stride="2" filename="force" format="xyz">forces{ev/ang}</trajectory>'
        text = text.replace('femtosecond">200<', 'femtosecond">20<')  # holds that equilibrate
        return text.replace("<checkpoint", line + "<checkpoint", 1)

    path = rr.oscillator_run(
        tmp_path / "run",
        temperature=T,
        masses="fixed",
        schedule="linear",
        timestep=6.0,
        equilibrate=60,
        switch=10,
        cycles=8,
        edit=printed,
    )
    assert "force" in path.read_text()
    assert rr.command("run", path.parent).returncode == 0
    result = analyze(path.parent, write=False)
    (term,) = [t for t in result.terms if t.name == NAME]
    # 9 modes: the centre of mass is fixed
    expected = formulas.time_step(T, 6.0, 9 * (6.0 - 2.0) / M / DALTON_ANGSTROM2_PER_FS2_EV)
    assert term.se < 0.4 * expected
    assert -term.value == pytest.approx(expected, abs=3.5 * term.se)
    assert "Δt = 6 fs" in term.source
    # of another splitting, or with several time steps, the shift is another
    assert not time_step_terms([replace(read_input(path), plain_verlet=False)])
