"""Reversible scaling: what is uncertain, and by how much; what a reference must be.

Switches without dissipation but for offsets of ∂H/∂λ that are chosen, so that every error is known.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.analysis_files import (
    lambdas,
    run_with_works,
    switching_input,
    write_input,
    write_outputs,
)
from scipy import stats

from alchemdriver import analysis
from alchemdriver.analysis.estimators.parts import cut, jackknife
from alchemdriver.contract.nodes import gauss_legendre
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.springs import write_springs
from alchemdriver.contract.xyz import read_xyz
from alchemdriver.errors import AnalysisError
from alchemdriver.units import kT

T0, ATOMS = 300.0, 4
F0 = -1.0  # eV, at T0
OFFSETS = np.array([[0.010, 0.002], [-0.007, 0.004], [0.013, -0.011]])  # eV, [replica, cycle]


def closed(t):
    """F(T) of harmonic atoms whose F(T0) is F0."""
    return F0 * t / T0 - 3.0 * ATOMS * kT(1.0) * t * np.log(t / T0)


def switches(folder, scale: float, offsets, **options):
    """∂H/∂λ is the exact mean, and *offsets* (cycles,) eV more on each pair's way out."""
    path = switching_input(
        folder, 0, 500, len(offsets), schedule="linear", alchemy=f"model->scaled, scale: {scale}",
        temperature=T0, **options,
    )  # fmt: skip
    s = 1.0 + lambdas(path) * (scale - 1.0)
    gradient = 1.5 * ATOMS * kT(T0) * (scale - 1.0) / s
    for cycle, offset in enumerate(offsets):
        # of both ends half, so that the trapezoid gives offset times λ and nothing on the way back
        start = 1000 * cycle
        gradient[start + 1 : start + 500] += offset
        gradient[[start, start + 500]] += 0.5 * offset
    write_outputs(path, gradient)
    return path


def replicas(folder, scale: float):
    return [
        switches(folder / f"r{k}", scale, offsets, seed=k + 1) for k, offsets in enumerate(OFFSETS)
    ]


@pytest.fixture(scope="module")
def frenkel_ladd(tmp_path_factory):
    """The result.json of a switch einstein->model of the same crystal, as it is written."""
    folder = tmp_path_factory.mktemp("einstein")
    path = switching_input(
        folder, 2, 5, 2, alchemy="einstein->model, springs: k.extxyz", temperature=T0
    )
    write_springs(folder / "k.extxyz", read_xyz(folder / "start.xyz"), np.full(ATOMS, 2.0))
    run_with_works(path, [0.10, 0.12], [-0.09, -0.08])
    analysis.analyze(path, n_ws=1)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture
def result_file(frenkel_ladd, tmp_path):
    """result_file(name, value, se, …): a folder whose result.json says so."""

    def write(name, value, se, temperature=T0, letter="F", pressure=None, terms=()):
        document = json.loads(json.dumps(frenkel_ladd))
        document["quantity"] = letter + document["quantity"][1:]
        document["conditions"] |= {"temperature": temperature, "pressure": pressure}
        document["terms"] = [
            {"name": t, "value": 0.1, "unit": "eV", "source": source, "se": None}
            for t, source in terms
        ]
        (total,) = [t for t in document["totals"] if t["method"] == "BAR"]
        document["totals"] = [total | {"value": value, "se": se, "dof": None}]
        (tmp_path / name).mkdir()
        path = tmp_path / name / "result.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path.parent

    return write


@pytest.mark.parametrize("reference_se", [None, 0.004])
@pytest.mark.parametrize("scale", [0.25, 2.0])
def test_errors_along_the_path(tmp_path, result_file, scale, reference_se):
    """Error of (T/T0) ½ (W_F − W_B) over its parts and over replicas, SE of (T/T0) G(T0) in
    quadrature, Student's factor for the degrees of freedom of the sum.

    A work that is off by δ λ has half of it in the half difference.  Hotter or colder than T0.
    """
    reference = F0
    if reference_se is not None:
        reference = result_file("reference", F0, reference_se)
    result = analysis.analyze(replicas(tmp_path, scale), reference=reference, write=False)
    curve, c = result.scaling, 0.5 * OFFSETS
    factor = curve.temperatures / T0
    assert curve.temperatures[[0, -1]] == pytest.approx([T0, T0 / scale])
    assert len(curve.temperatures) < 110  # thinned, both ways
    np.testing.assert_allclose(np.diff(curve.temperatures), T0 * (1 / scale - 1) / 100, rtol=0.7)
    own = factor * (reference_se or 0.0)
    parts = cut(c.ravel(), [c.shape[1]] * len(c))
    _, sigma = jackknife(lambda w: w @ c.ravel() / w.sum(1), parts)
    sigmas = factor * curve.lam * sigma
    means = factor * curve.lam * c.mean(axis=1).std(ddof=1) / np.sqrt(len(c))

    def student(sigmas, dof):
        with np.errstate(invalid="ignore", divide="ignore"):
            nu = np.minimum(1e9, (sigmas**2 + own**2) ** 2 / (sigmas**4 / dof))
        return np.nan_to_num(stats.t.ppf(0.8413447, nu) * np.hypot(sigmas, own), nan=0.0)

    near = {"rtol": 0.01, "atol": 2e-5}  # half a step at either end of the offset
    np.testing.assert_allclose(curve.se, student(sigmas, parts.dof), **near)
    np.testing.assert_allclose(curve.se_replicas, student(means, len(c) - 1), **near)
    total = result.total("eq. 11")
    assert total.se == pytest.approx(curve.se[-1], rel=1e-6)
    assert total.value == pytest.approx(closed(T0 / scale) + c.mean() / scale, abs=1e-4)


@pytest.mark.parametrize("scale", [0.25, 2.0])
def test_a_check_counts_both_errors_and_is_per_formula_unit(tmp_path, result_file, scale):
    t = T0 / (1.0 + 0.5 * (scale - 1.0))  # at λ = ½
    exact = closed(t) + 0.25 * OFFSETS.mean() * t / T0
    run = replicas(tmp_path, scale)
    alone = analysis.analyze(run, reference=F0, write=False).scaling
    order = np.argsort(alone.temperatures)
    curve_se = np.interp(t, alone.temperatures[order], alone.se[order])
    for k, (sigmas, warned) in enumerate(((1.5, False), (2.5, True))):
        sigma = np.hypot(curve_se, 0.003)
        other = result_file(f"other{k}", exact - sigmas * sigma, 0.003, t)
        result = analysis.analyze(run, reference=F0, check=other, write=False)
        check = result.scaling.check
        assert check.sigma == pytest.approx(sigma, rel=0.02)
        assert check.difference == pytest.approx(sigmas * sigma, abs=2e-4)
        assert check.per_formula_unit == pytest.approx(check.difference / ATOMS)
        assert any("from the independent value" in w for w in result.warnings) == warned


def test_windows_carry_the_errors_of_mbar(tmp_path):
    """The end of the curve is the total, and so is its error."""
    rng = np.random.default_rng(8)
    paths = []
    for i, lam in enumerate(gauss_legendre(3)[0].tolist()):
        path = write_input(
            tmp_path / f"l{i}", f"scale: 0.5, lambda: {lam!r}", 999, alchemy="model->scaled",
            temperature=T0, seed=i,
        )  # fmt: skip
        s = 1.0 - 0.5 * lam
        energy = 0.5 * kT(T0) / s * np.sum(rng.normal(size=(1000, 3 * ATOMS)) ** 2, axis=1)
        write_outputs(path, -0.5 * energy)
        paths.append(path)
    result = analysis.analyze(paths, write=False)
    assert result.scaling.lam[[0, -1]].tolist() == [0.0, 1.0]
    assert result.scaling.se[-1] == pytest.approx(result.total("MBAR").se, rel=1e-9)
    assert result.scaling.values[-1] == pytest.approx(result.total("MBAR").value, rel=1e-9)


@pytest.mark.parametrize(
    ("pressure", "source", "words"),
    [
        (None, None, None),
        (5.0, None, "at 5 bar"),
        (1.0, None, None),
        (None, "eq. 20, 5 bar, 216.000 Å^3", "another pressure"),
        (None, "eq. 20, 1 bar, 216.000 Å^3", None),
    ],
)
def test_a_gibbs_energy_is_of_one_pressure(tmp_path, result_file, pressure, source, words):
    """G at 5 bar is no start for a path at 1 bar, whether the run or its P V term had it."""
    path = switches(
        tmp_path / "r", 0.25, [0.0], ensemble="npt", pressure="<pressure units='bar'>1</pressure>"
    )
    assert read_input(path).pressure == pytest.approx(1.0)
    terms = [] if source is None else [("P V", source)]
    reference = result_file("g", F0, 0.001, letter="G", pressure=pressure, terms=terms)
    if words is None:
        result = analysis.analyze(path, reference=reference, write=False)
        assert result.quantity.startswith("G at 1200 K")
    else:
        with pytest.raises(AnalysisError, match=words):
            analysis.analyze(path, reference=reference, write=False)
