"""Extrapolation to large crystals on closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import exact_crystal as exact

from alchemdriver.analysis.compare.gather import Gathered, extrapolations
from alchemdriver.analysis.compare.workflow import Row
from alchemdriver.analysis.corrections.formulas import infinite_size


def row(quantity: str, natoms: int, per_unit: float, temperature: float = 50.0) -> Gathered:
    per = natoms if quantity == "G" else 1
    return Gathered(
        str(natoms),
        Row(
            quantity, "Frenkel–Ladd", "", temperature, 1.0, per_unit * per, 1e-4 * per, 2e-4 * per,
            None, 4, per, "atom", 1000, 1.0, natoms, 1.0, "demo AlNi", {},
        ),
    )  # fmt: skip


def test_absolute_free_energies_extrapolate_with_their_logarithm():
    """Coupled harmonic crystals, exact at every size, against the infinite crystal."""
    sizes, values = [], []
    for repeat in (2, 3, 4):
        structure = exact.crystal(("Al", "Ni"), repeat)
        sizes.append(len(structure))
        values.append(exact.free_energy(structure, 50.0) / len(structure))
    (found,) = extrapolations([row("G", n, v) for n, v in zip(sizes, values, strict=True)])
    infinite = exact.infinite_crystal(("Al", "Ni"), 50.0)
    assert found.sizes == (16, 54, 128)
    assert found.value == pytest.approx(infinite, abs=1e-5)
    naive = np.polyfit([1 / n for n in sizes], values, 1)[1]
    assert abs(naive - infinite) > 3e-5  # what the logarithm is there for


def test_one_size_is_no_extrapolation_and_differences_have_no_logarithm():
    assert extrapolations([row("G", 16, -1.0)]) == []
    (found,) = extrapolations([row("G_v", 54, 2.0 + 1 / 54), row("G_v", 128, 2.0 + 1 / 128)])
    assert found.value == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("errors", [[1e-3, 1e-3, 1e-3], [1e-3, 4e-4, 3e-3]])
def test_the_fit_in_one_over_n_weighs_sizes_by_their_errors(errors):
    """Its SE is the scatter of fits to noise of these errors, the least that any fit can have."""
    sizes = [54, 128, 250]
    values = np.array([-4.0 + 1.7 / n for n in sizes])
    noisy = values + np.random.default_rng(1).normal(size=(1000, 3)) * errors
    fits = np.array([infinite_size(sizes, y, errors) for y in noisy])
    assert np.std(fits[:, 0]) == pytest.approx(fits[0, 1], rel=0.1)
    assert fits[:, 0].mean() == pytest.approx(-4.0, abs=4.0 * fits[0, 1] / np.sqrt(1000))
    alike = np.array([infinite_size(sizes, y, [1e-3] * 3)[0] for y in noisy])
    assert np.std(fits[:, 0]) <= np.std(alike)
