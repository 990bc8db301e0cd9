"""The conformance suite: what it must refuse, and what it says then."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alchemdriver.errors import ModelError
from alchemdriver.records import Structure
from alchemdriver.testing import TOLERANCES, assert_conforms

CELL = np.array([[6.0, 0.3, 0.0], [0.2, 5.5, 0.4], [0.5, 0.1, 6.2]])
STRUCTURE = Structure(
    ("Ar", "Kr", "Ar", "Ar", "Kr"), np.random.default_rng(4).random((5, 3)) @ CELL, CELL
)
STATES = [{0: "Ar", 3: "Kr"}, {0: "Kr"}]


@pytest.fixture
def soft(monkeypatch):
    """The module of the model in ``potential/plugin``, which conforms."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "potential" / "plugin"))
    from soft_spheres import model

    return model


def backend(soft):
    return soft.SoftSpheres("soft", {"Ar": 1.0, "Kr": 1.5}, 4.5)


def test_all_checks_of_a_sound_model(soft):
    errors = assert_conforms(backend(soft), STRUCTURE, STATES)
    assert errors["repetition"] == errors["history"] == 0.0
    assert {"batch", "wrapping", "slope weights", "slope strain"} < errors.keys()


def test_a_model_that_starts_from_its_last_result_is_refused(soft, monkeypatch):
    """As a self-consistent one would: repeated at once, it agrees with itself to the bit."""

    class Remembering(soft.SoftPotential):
        last = None

        def evaluate(self, positions, cell, pbc, weights):
            found = super().evaluate(positions, cell, pbc, weights)
            away = 0.0 if self.last is None else float(np.abs(positions - self.last).max())
            self.last = positions
            return replace(found, energy=found.energy + 1e-13 * away)

    monkeypatch.setattr(soft, "SoftPotential", Remembering)
    with pytest.raises(ModelError, match="history, the result depends on what was evaluated"):
        assert_conforms(backend(soft), STRUCTURE, STATES)


def test_a_model_that_keeps_what_it_made_for_another_cell_is_refused(soft, monkeypatch):
    """A neighbour list of the last cell, remade only where the cell is another by 5 %."""
    original = soft.directed_edges
    kept = {}

    def stale(positions, cell, pbc, cutoff):
        if "cell" not in kept or np.abs(cell - kept["cell"]).max() > 0.05 * np.abs(cell).max():
            kept["cell"] = cell
        return original(positions, kept["cell"], pbc, cutoff)

    monkeypatch.setattr(soft, "directed_edges", stale)
    with pytest.raises(ModelError, match="history"):
        assert_conforms(backend(soft), STRUCTURE, STATES)


def test_a_model_whose_potentials_differ_from_each_other_is_refused(soft, monkeypatch):
    class Numbered(soft.SoftPotential):
        made = 0

        def __init__(self, *args):
            super().__init__(*args)
            Numbered.made += 1
            self.strength = self.strength * (1.0 + 1e-14 * Numbered.made)

    monkeypatch.setattr(soft, "SoftPotential", Numbered)
    with pytest.raises(ModelError, match="history"):
        assert_conforms(backend(soft), STRUCTURE, STATES)


def test_a_failed_finite_difference_tells_its_step(soft):
    with pytest.raises(ModelError, match=r"slope .* step 0\.2.*give a smaller one"):
        assert_conforms(backend(soft), STRUCTURE, STATES, step=0.2)
    with pytest.raises(ModelError, match=r"slope .* with step 0\.001"):
        assert_conforms(
            backend(soft), STRUCTURE, STATES, tolerances=replace(TOLERANCES["float64"], slopes=0.0)
        )
