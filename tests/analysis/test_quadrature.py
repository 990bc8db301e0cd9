"""Quadrature: the right rule for the nodes that were run, and an honest word about its error."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.analysis_files import write_input, write_outputs
from scipy import stats

from alchemdriver import analysis
from alchemdriver.analysis.estimators.quadrature import quadrature
from alchemdriver.contract.nodes import gauss_legendre

EXACT = 1.5 * np.log(3.0)  # ∫ 3/(1 + 2λ), an oscillator k 1 → 3


def integrand(lam):
    return 3.0 / (1.0 + 2.0 * np.asarray(lam))


@pytest.mark.parametrize("n", [2, 3, 5, 7, 12])
def test_gauss_legendre_nodes_get_gauss_legendre_weights(n):
    """Exact for every polynomial of degree 2n − 1, which no other rule on n nodes is."""
    nodes, _ = gauss_legendre(n)
    rule = quadrature(np.array([float(f"{x:.8f}") for x in nodes]))  # as typed by hand
    assert rule.rule.startswith("Gauss–Legendre")
    for degree in range(2 * n):
        exact = 1.0 / (degree + 1)
        assert rule.weights @ rule.nodes**degree == pytest.approx(exact, abs=1e-6)
    degree = 2 * n
    assert abs(rule.weights @ rule.nodes**degree - 1.0 / (degree + 1)) > 1e-12


def test_trapezoid_weights_on_gauss_nodes_are_ten_percent_off():
    """What wrong weights would cost: the error that recognising the nodes avoids."""
    rule = quadrature(gauss_legendre(5)[0])
    assert rule.weights @ integrand(rule.nodes) == pytest.approx(EXACT, rel=1e-4)
    assert np.trapezoid(integrand(rule.nodes), rule.nodes) < 0.92 * EXACT


@pytest.mark.parametrize("n", [3, 5, 7, 9])
def test_equal_spacing_with_both_ends_is_simpson(n):
    rule = quadrature(np.linspace(0, 1, n))
    assert rule.rule == f"Simpson, {n} nodes"
    for degree in range(4):
        assert rule.weights @ rule.nodes**degree == pytest.approx(1.0 / (degree + 1), abs=1e-14)


@pytest.mark.parametrize("lams", [[0, 1], [0, 0.1, 0.5, 1], np.linspace(0, 1, 6)])
def test_other_nodes_with_both_ends_are_trapezoidal(lams):
    rule = quadrature(lams)
    assert rule.rule.startswith("trapezoid")
    assert rule.weights @ integrand(rule.nodes) == pytest.approx(
        np.trapezoid(integrand(lams), lams), rel=1e-14
    )


@pytest.mark.parametrize("lams", [[0.5], [0.0, 0.5], [0.2, 0.8], gauss_legendre(5)[0][:4], []])
def test_nodes_of_no_rule_give_none(lams):
    """A window that is missing changes the rule: the rest is refused, not integrated."""
    assert quadrature(lams) is None


@pytest.mark.parametrize(
    "lams",
    [*(gauss_legendre(n)[0] for n in (3, 4, 5, 7)), *(np.linspace(0, 1, n) for n in (3, 5, 9))],
    ids=str,
)
def test_embedded_rule_bounds_the_error(lams):
    rule = quadrature(lams)
    value = rule.weights @ integrand(rule.nodes)
    lower = rule.embedded @ integrand(rule.nodes)
    assert rule.embedded.sum() == pytest.approx(1.0)
    assert abs(value - EXACT) < abs(value - lower) < 0.1 * EXACT


def test_four_nodes_have_no_embedded_trapezoid():
    assert quadrature(np.linspace(0, 1, 4)).embedded is None
    assert quadrature(gauss_legendre(2)[0]).embedded is None


def test_windows_enter_with_the_weights_of_the_rule(tmp_path):
    """Simpson's 1/6, 2/3, 1/6 and the trapezoid's 1/4, 1/2, 1/4; two windows at λ = ½ count half.

    Errors in quadrature; the rules differ by less noise than either has.
    """
    rng = np.random.default_rng(3)
    paths = []
    for i, (lam, mean, sd) in enumerate(
        ((0.0, 3.0, 0.1), (0.5, 1.4, 0.5), (0.5, 1.6, 0.2), (1.0, 1.0, 0.3))
    ):
        path = write_input(tmp_path / f"l{i}", f"lambda: {lam!r}", 399, seed=i)
        write_outputs(path, mean + sd * rng.normal(size=400))
        paths.append(path)
    result = analysis.analyze(paths, write=False)
    first, a, b, last = (w.mean for w in result.windows)
    middle = 0.5 * (a.value + b.value)
    values = np.array([first.value, middle, last.value])
    simpson, trapezoid = np.array([1, 4, 1]) / 6, np.array([1, 2, 1]) / 4
    assert result.integral.value == pytest.approx(simpson @ values)
    variances = np.square([first.sigma, 0.5 * a.sigma, 0.5 * b.sigma, last.sigma])
    dofs = np.array([first.dof, a.dof, b.dof, last.dof])

    def error(weights):
        """Student's, with Welch and Satterthwaite's degrees of freedom."""
        v = np.square(weights[[0, 1, 1, 2]]) * variances
        dof = v.sum() ** 2 / np.sum(v**2 / dofs)
        return stats.t.ppf(0.8413447, dof) * np.sqrt(v.sum())

    assert result.integral.se == pytest.approx(error(simpson), rel=1e-6)
    assert result.quadrature.difference == pytest.approx((simpson - trapezoid) @ values)
    assert result.quadrature.difference_se == pytest.approx(error(simpson - trapezoid), rel=1e-6)


@pytest.mark.parametrize(
    ("difference", "noise", "se", "matters"),
    [
        (3.0, 1.0, 1.0, True),
        (-3.0, 1.0, 1.0, True),
        (1.5, 1.0, 1.0, False),  # within twice its own noise
        (3.0, 1.0, 4.0, False),  # within the error of the integral
        (3.0, None, 1.0, False),
        (3.0, 1.0, None, False),
    ],
)
def test_rules_differ_beyond_their_noise_and_beyond_the_error(difference, noise, se, matters):
    rule = replace(quadrature([0.0, 0.5, 1.0]), difference=difference, difference_se=noise)
    assert rule.matters(se) == matters
