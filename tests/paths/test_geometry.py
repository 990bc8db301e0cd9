"""Cells and images, against a search through all of them."""

import itertools

import numpy as np
import pytest

from alchemdriver.errors import RunError
from alchemdriver.paths.geometry import minimum_image

CELLS = {
    "cubic": 4.0 * np.eye(3),
    "long": np.diag([4.0, 6.0, 15.0]),
    "sheared": np.array([[5.0, 0.0, 0.0], [2.4, 3.0, 0.0], [0.0, 0.0, 12.0]]),
    "oblique": np.array([[6.0, 0.0, 0.0], [2.9, 4.0, 0.0], [2.5, 1.9, 9.0]]),
}


def heights(cell):
    """Distances (3,) Å between opposite faces: volume by area."""
    a, b, c = cell
    areas = [np.linalg.norm(np.cross(*pair)) for pair in ((b, c), (c, a), (a, b))]
    return abs(np.linalg.det(cell)) / np.array(areas)


def shortest(vector, cell, pbc):
    """The shortest of all images within three cells."""
    ranges = [range(-3, 4) if periodic else (0,) for periodic in pbc]
    images = np.array([vector + np.array(n) @ cell for n in itertools.product(*ranges)])
    return images[np.linalg.norm(images, axis=1).argmin()]


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, True, True)])
@pytest.mark.parametrize("name", CELLS)
def test_the_minimum_image_is_the_shortest_or_refused(name, pbc):
    """Up to half the shortest periodic height it is found; beyond, an anchor is not certain."""
    cell = CELLS[name]
    limit = 0.5 * heights(cell)[list(pbc)].min()
    rng = np.random.default_rng(5)
    accepted = refused = 0
    for _ in range(400):
        vector = rng.uniform(-0.5, 0.5, 3) @ cell
        shifts = rng.integers(-2, 3, 3) * np.array(pbc)
        expected = shortest(vector, cell, pbc)
        if np.linalg.norm(expected) < limit:
            found = minimum_image((vector + shifts @ cell)[None], cell, pbc)[0]
            np.testing.assert_allclose(found, expected, atol=1e-12)
            accepted += 1
        else:
            with pytest.raises(RunError, match=f"shortest cell height \\({limit:.2f} Å\\)"):
                minimum_image((vector + shifts @ cell)[None], cell, pbc)
            refused += 1
    assert min(accepted, refused) > 5


def test_rounding_beyond_half_the_shortest_height_finds_another_image():
    """Why the limit is what it is: between half the shortest and half the longest height, rounded
    fractions of this cell give a vector that is not the shortest."""
    cell = CELLS["sheared"]
    h = heights(cell)
    vector = 0.45 * cell[0] + 0.45 * cell[1]
    rounded = vector - np.round(vector @ np.linalg.inv(cell)) @ cell
    length = np.linalg.norm(shortest(vector, cell, (True,) * 3))
    assert length < np.linalg.norm(rounded) - 0.1
    assert 0.5 * h.min() < length < np.linalg.norm(rounded) < 0.5 * h.max()
    with pytest.raises(RunError, match="atom 7 is"):
        minimum_image(vector[None], cell, atoms=[7])
