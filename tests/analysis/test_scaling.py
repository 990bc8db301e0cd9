"""Reversible scaling: the Hamiltonian, equivalent dynamics step by step, F(T) in closed form."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from helpers import real_runs as rr
from helpers.analysis_files import lambdas, switching_input, write_input, write_outputs
from helpers.driven_oscillator import DrivenOscillator
from helpers.stored_results import switching_result

from alchemdriver import analysis, units
from alchemdriver.analysis.result import write_result
from alchemdriver.client import assembly
from alchemdriver.contract.digest import digest
from alchemdriver.contract.layout import find_runs
from alchemdriver.contract.nodes import gauss_legendre
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.transformation import parse_alchemy
from alchemdriver.errors import AnalysisError, InputError
from alchemdriver.paths.formulas import einstein_crystal
from alchemdriver.potential import checks
from alchemdriver.potential.backends.harmonic import HarmonicBackend
from alchemdriver.potential.hamiltonian import build
from alchemdriver.records import Structure
from alchemdriver.units import kT

CELL = np.array([[5.0, 0.0, 0.0], [2.3, 4.6, 0.0], [-1.9, 1.8, 5.2]])
SEED = 900  # fixed before the first run
PRESSURE = 1e5  # bar; P V is some 8 eV here, so that its share cannot hide


@pytest.fixture(scope="module")
def system():
    """A model with real forces on a few atoms, moved off their places; and its Hamiltonian."""
    rng = np.random.default_rng(3)
    anchors = rng.random((3, 3)) @ CELL
    structure = Structure(("Cu", "Cu", "Au"), anchors, CELL)
    backend = HarmonicBackend({"Cu": 2.0, "Au": 3.0}, anchors, CELL)
    whole = parse_alchemy("model->scaled", structure.symbols)
    built = build(whole, backend, structure, scale=0.25, pressure=PRESSURE)
    return built, anchors + rng.normal(0, 0.1, (3, 3))


@pytest.mark.parametrize("lam", [0.0, 0.37, 1.0])
def test_forces_virial_and_slope_are_derivatives(system, lam):
    h, x = system
    found = h.evaluate(x, CELL, lam)

    def energy(x=x, cell=CELL, lam=lam):
        return h.evaluate(x, cell, lam).energy

    for index in np.ndindex(x.shape):
        unit = np.zeros_like(x)
        unit[index] = 1.0
        slope = checks.difference_quotient(lambda t, u=unit: energy(x + t * u), 1e-3)
        assert -slope == pytest.approx(found.forces[index], abs=1e-8)
    for index in np.ndindex(3, 3):
        e = np.zeros((3, 3))
        e[index] = 1.0
        slope = checks.difference_quotient(
            lambda t, e=e: energy(x @ (np.eye(3) + t * e), CELL @ (np.eye(3) + t * e)), 1e-3
        )
        assert -slope == pytest.approx(found.virial[index], abs=1e-8)
    slope = checks.difference_quotient(lambda t: energy(lam=lam + t), 1e-3)
    assert slope == pytest.approx(found.dHdlambda, abs=1e-8)
    assert abs(found.dHdlambda) > 1.0


@pytest.mark.parametrize("lam", [0.0, 0.37, 1.0])
def test_with_ipis_own_pv_the_whole_enthalpy_is_scaled(system, lam):
    """H + P V = s (U + P V), and ∂H/∂λ = (scale − 1)(U + P V)."""
    h, x = system
    pv = PRESSURE * units.BAR_EV_PER_ANGSTROM3 * np.linalg.det(CELL)
    u = h.evaluate(x, CELL, 0.0).energy  # s = 1: the model itself
    s = 1.0 + lam * (0.25 - 1.0)
    found = h.evaluate(x, CELL, lam)
    assert found.energy + pv == pytest.approx(s * (u + pv), rel=1e-13)
    assert found.dHdlambda == pytest.approx((0.25 - 1.0) * (u + pv), rel=1e-13)


def test_without_a_barostat_there_is_no_volume_term(tmp_path):
    path = rr.oscillator_run(
        tmp_path / "a", "nvt-fixed", alchemy="model->scaled", scale=0.5, lambda_=1.0, steps=1
    )
    terms = assembly.hamiltonian_of(read_input(path), "cpu").terms
    assert [repr(t) for t in terms] == ["scaled plain potential"]


def scaled_run(folder, protocol, lam, **kwargs):
    return rr.oscillator_run(
        folder, protocol, alchemy="model->scaled", scale=0.25, lambda_=lam, **kwargs
    )


def set_value(text: str, tag: str, value: float) -> str:
    return re.sub(rf"(<{tag} [^>]*>)[^<]*(</{tag}>)", rf"\g<1>{value!r}\g<2>", text)


def times(text: str, factor: float) -> str:
    """Every time constant of the thermostats and the barostat times *factor*."""
    return re.sub(
        r"(<tau [^>]*>)([^<]*)(</tau>)",
        lambda m: f"{m[1]}{float(m[2]) * factor!r}{m[3]}",
        text,
    )


def test_scaled_dynamics_is_that_of_the_higher_temperature(tmp_path):
    """s (U + P V) at T0 and U + P V at T0/s move alike, times stretched by √s: step by step.

    Through i-PI's own barostat, so that energy, virial and sign of the P V term all enter.  The
    volume of an unscaled pressure would differ in the first digits.
    """
    root = 0.5  # √s
    out = {}
    for name, lam, temperature, stretch in (
        ("scaled", 1.0, 300.0, 1.0),
        ("hot", 0.0, 1200.0, root),
    ):

        def edit(text, stretch=stretch):
            text = set_value(times(text, stretch), "pressure", PRESSURE)
            return re.sub("stride=.10.", 'stride="1"', text)

        path = scaled_run(
            tmp_path / name,
            "windows-npt",
            lam,
            steps=60,
            temperature=temperature,
            timestep=2.0 * stretch,
            seed=7,
            edit=edit,
        )
        # edited after prepare: let the run sign it anew
        path.write_text(re.sub(r", digest: [^,}]*", "", path.read_text()))
        done = rr.command("run", path.parent)
        assert done.returncode == 0, done.stderr
        out[name] = np.loadtxt(path.parent / "run.out")
    scaled, hot = out["scaled"], out["hot"]
    assert len(scaled) == 61
    np.testing.assert_allclose(hot[:, 3], 4.0 * scaled[:, 3], rtol=1e-8)  # temperature
    np.testing.assert_allclose(hot[:, 7], scaled[:, 7], rtol=1e-9)  # volume
    assert np.ptp(hot[:, 7]) > 1.0


def test_scale_belongs_to_the_digest(tmp_path):
    texts = []
    for scale, pressure in ((0.25, 1.0), (0.5, 1.0), (0.25, 2.0)):
        path = rr.oscillator_run(
            tmp_path / f"{scale}-{pressure}",
            "windows-npt",
            alchemy="model->scaled",
            scale=scale,
            lambda_=1,
            steps=10,
        )
        path.write_text(set_value(path.read_text(), "pressure", pressure))
        texts.append(digest(read_input(path)))
    assert len(set(texts)) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alchemy": "model->scaled"}, "go together"),
        ({"alchemy": "Cu->Au", "scale": 0.5}, "go together"),
        ({"alchemy": "model->scaled", "scale": 1}, "other than 1"),
        ({"alchemy": "model->scaled", "scale": -0.5}, "positive"),
        ({"alchemy": "model->scaled", "scale": 0.5, "beads": 4}, "classical"),
        ({"alchemy": "model->scaled Cu->Au", "scale": 0.5}, "cannot be combined"),
    ],
)
def test_what_cannot_be_scaled_is_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        rr.oscillator_run(tmp_path / "a", "nvt-fixed", lambda_=0.5, steps=1, **options)


def test_protocol_wants_its_scale(tmp_path):
    with pytest.raises(InputError, match="needs a scale"):
        rr.oscillator_run(
            tmp_path / "a",
            "scaling-nvt",
            alchemy="model->scaled",
            equilibrate=1,
            switch=2,
            cycles=1,
        )


# --- F(T) of oscillators in closed form ---------------------------------------------------------

T0, SCALE, ATOMS = 300.0, 0.25, 4
T = T0 / SCALE
CLOSED = -3.0 * ATOMS * kT(T) * np.log(T / T0)  # F(T) − (T/T0) F(T0), F = 3 N kT ln(ħω/kT)


def quasistatic(folder, steps=2000, **options):
    """A switch without dissipation: ∂H/∂λ of every step is the exact average, (3/2) N kT0 s'/s."""
    path = switching_input(
        folder,
        0,
        steps,
        1,
        schedule="linear",
        alchemy=f"model->scaled, scale: {SCALE}",
        temperature=T0,
        **options,
    )
    s = 1.0 + lambdas(path) * (SCALE - 1.0)
    write_outputs(path, 1.5 * ATOMS * kT(T0) * (SCALE - 1.0) / s)
    return path


def test_free_energy_along_the_path_is_the_closed_form(tmp_path):
    """A wrong sign of ln T, or no kinetic term, is off by twice or once 0.4 eV."""
    result = analysis.analyze(quasistatic(tmp_path / "r"), write=False)
    curve = result.scaling
    t = curve.temperatures
    assert t[0] == pytest.approx(T0)
    assert t[-1] == pytest.approx(T)
    np.testing.assert_allclose(np.diff(t), (T - T0) / 100, rtol=0.2)  # thinned evenly
    exact = -3.0 * ATOMS * kT(1.0) * t * np.log(t / T0)
    np.testing.assert_allclose(curve.values, exact, atol=1e-6)
    np.testing.assert_allclose(curve.dissipation, 0.0, atol=1e-12)
    assert result.total("eq. 11").value == pytest.approx(CLOSED, abs=1e-6)
    kinetic = next(term for term in result.terms if term.name == "kinetic energy")
    assert kinetic.value == pytest.approx(0.5 * CLOSED)
    for wrong in (0.0, -kinetic.value):
        assert abs(result.total("eq. 11").value - kinetic.value + wrong - CLOSED) > 0.8


def test_a_reference_makes_it_absolute(tmp_path):
    """F = 3 N kT ln(ħω/kT) at T0 in, the same at T out."""
    k = np.full(ATOMS, 2.0)
    masses = np.full(ATOMS, 63.546)
    start, end = (einstein_crystal(t, k, masses) for t in (T0, T))
    path = quasistatic(tmp_path / "r")
    result = analysis.analyze(path, reference=start, write=False)
    assert result.quantity.startswith("F at 1200 K")
    assert result.total("eq. 11").value == pytest.approx(end, abs=1e-6)
    assert result.scaling.values[0] == pytest.approx(start)
    assert not any("no absolute free energy" in w for w in result.warnings)
    bare = analysis.analyze(path, write=False)
    assert any("no absolute free energy" in w for w in bare.warnings)


def other_result(folder, value, temperature=T0, **changes):
    """A result.json of an absolute free energy, as einstein->model writes it."""
    folder.mkdir()
    write_result(switching_result(folder, value, 0.001, temperature=temperature, **changes))
    return folder


def test_reference_and_check_point_come_from_other_results(tmp_path):
    path = quasistatic(tmp_path / "r")
    reference = other_result(tmp_path / "a", -1.0)
    end = -4.0 + CLOSED
    right = other_result(tmp_path / "b", end + 0.003, T)
    result = analysis.analyze(path, reference=reference, check=right, write=False)
    check = result.scaling.check
    assert check.difference == pytest.approx(-0.003, abs=1e-6)
    assert check.against.temperature == T
    # the reference's own error counts T/T0 times
    assert result.scaling.reference.se == 0.001
    summary = analysis.summary(result)
    assert "check at 1200 K" in summary
    half_way = other_result(tmp_path / "c", -2.0 - 3 * ATOMS * kT(600.0) * np.log(2.0), 600.0)
    result = analysis.analyze(path, reference=reference, check=half_way, write=False)
    assert result.scaling.check.difference == pytest.approx(0.0, abs=1e-4)


def test_a_check_that_fails_is_said_aloud(tmp_path):
    one = quasistatic(tmp_path / "r")
    two = quasistatic(tmp_path / "s", seed=2)
    text = (tmp_path / "s" / "run.dHdlambda_0").read_text()
    write_outputs(two, 1.001 * analysis.read_gradients(read_input(two)).mean)
    assert (tmp_path / "s" / "run.dHdlambda_0").read_text() != text
    wrong = other_result(tmp_path / "b", -4.0 + CLOSED + 0.2, T)
    reference = other_result(tmp_path / "a", -1.0)
    result = analysis.analyze([one, two], reference=reference, check=wrong, write=False)
    assert any("from the independent value at 1200 K" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quantity": "ΔF, final minus initial state"}, "expected an absolute F"),
        ({"quantity": "G of the model crystal (eq. 20)"}, "expected an absolute F"),
        ({"temperature": 310.0}, "expected 300 K"),
        ({"formula": "Cu32"}, "Cu32"),
        ({"totals": ()}, "no total"),
        ({"formula_units": 0}, "formula_units: expected a whole number of at least 1, got 0"),
    ],
)
def test_references_of_something_else_are_refused(tmp_path, changes, words):
    path = quasistatic(tmp_path / "r", 20)
    reference = other_result(tmp_path / "a", -1.0, **changes)
    with pytest.raises(AnalysisError, match=words):
        analysis.analyze(path, reference=reference, write=False)


def test_references_belong_to_scaling(tmp_path):
    path = switching_input(tmp_path / "r", 0, 5, 1)
    write_outputs(path, np.ones(11))
    with pytest.raises(AnalysisError, match="model->scaled"):
        analysis.analyze(path, reference=-1.0, write=False)
    with pytest.raises(AnalysisError, match="neither a number"):
        analysis.analyze(quasistatic(tmp_path / "s", 5), reference="nowhere", write=False)


def test_windows_give_the_same_free_energy(tmp_path):
    """Equilibrium windows of model->scaled: TI and MBAR from ∂H/∂λ, all of it Gaussian."""
    rng = np.random.default_rng(8)
    paths = []
    for i, lam in enumerate(gauss_legendre(5)[0].tolist()):
        path = write_input(
            tmp_path / f"l{i}",
            f"scale: {SCALE}, lambda: {lam!r}",
            1999,
            alchemy="model->scaled",
            temperature=T0,
            seed=i,
        )
        s = 1.0 + lam * (SCALE - 1.0)
        energy = 0.5 * kT(T0) / s * np.sum(rng.normal(size=(2000, 3 * ATOMS)) ** 2, axis=1)
        write_outputs(path, (SCALE - 1.0) * energy)
        paths.append(path)
    result = analysis.analyze(paths, write=False)
    for method in ("TI", "MBAR"):
        total = result.total(method)
        assert abs(total.value - CLOSED) < 3.0 * total.se
        assert total.se < 0.02 * abs(CLOSED)
    exact = -3.0 * ATOMS * kT(1.0) * result.scaling.temperatures
    exact *= np.log(result.scaling.temperatures / T0)
    off = np.abs(result.scaling.values - exact)[1:]
    assert np.all(off < 3.0 * result.scaling.se[1:])


def test_works_through_ipi_give_the_closed_form(tmp_path):
    """Two replicas through real i-PI against the exact moments of the same discrete steps."""
    path = rr.oscillator_run(
        tmp_path / "draft",
        "scaling-nvt",
        alchemy="model->scaled",
        scale=SCALE,
        equilibrate=60,
        switch=250,
        cycles=2,
        timestep=8.0,
        temperature=T0,
        seed=SEED,
        edit=lambda text: re.sub(r"(<tau [^>]*>)200(</tau>)", r"\g<1>40\g<2>", text).replace(
            "<fixcom>True<", "<fixcom>False<"
        ),
    )
    for r in (1, 2):
        folder = tmp_path / "run" / f"replica-{r}"
        shutil.copytree(tmp_path / "draft", folder)
        text = (folder / "input.xml").read_text()
        (folder / "input.xml").write_text(
            text.replace(f"<seed>{SEED}</seed>", f"<seed>{SEED + r}</seed>")
        )
    done = rr.command("run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    run = read_input(path)
    assert run.schedule.shape(0.25) == 0.25  # linear in time
    oscillator = DrivenOscillator(
        run.schedule, 8.0, 40.0, (2.0, 2.0 * SCALE), (run.initial_masses[0],) * 2, T0
    )
    works, dof = oscillator.works(), 3 * ATOMS
    result = analysis.analyze(find_runs(tmp_path / "run"), write=False)
    se = works.se(0.5, -0.5, 2, dof)
    value = result.pooled.eq11.value
    assert abs(value - dof * works.eq11) <= 3.0 * se
    total = result.total("eq. 11")
    bias = T / T0 * dof * works.eq11_bias
    assert abs(total.value - bias - CLOSED) <= 3.0 * se * T / T0
    assert se * T / T0 < 0.1 * abs(CLOSED)  # else the comparison says nothing
    # the curve begins at 0 and ends at the total
    assert result.scaling.values[0] == 0.0
    assert result.scaling.values[-1] == pytest.approx(total.value)
    assert len(result.scaling.se_replicas) == len(result.scaling.values)
    law = result.replicas[0].first_law
    assert law.max_deviation < 0.1 * kT(T0)
    assert {p.name for p in analysis.save_plots(result, tmp_path)} >= {"free_energy.png"}
