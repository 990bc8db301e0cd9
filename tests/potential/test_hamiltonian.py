"""Every term's forces, virial and ∂H/∂λ against finite differences, and the exact end states."""

import subprocess
import sys

import ase
import ase.io
import numpy as np
import pytest

from alchemdriver.contract.springs import read_springs
from alchemdriver.errors import InputError, ModelError, RunError
from alchemdriver.potential.backends.harmonic import HarmonicBackend
from alchemdriver.potential.geometry import minimum_image
from alchemdriver.potential.hamiltonian import Hamiltonian, Scaled, Springs, build, fading, growing
from alchemdriver.records import Evaluation, Structure, Transformation

CELL = np.array([[5.0, 0.0, 0.0], [2.3, 4.6, 0.0], [-1.9, 1.8, 5.2]])  # skewed, det > 0
SYMBOLS = ("Pb", "I", "Cs", "Pb", "I", "I")
K = {"Pb": 2.0, "Sn": 3.5, "I": 1.2, "Cs": 0.7}  # eV/Å^2
LAMBDAS = (0.0, 0.37, 1.0)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def anchors(rng):
    return rng.random((6, 3)) @ CELL


@pytest.fixture
def structure(rng, anchors):
    """Displaced by 0.2 Å, so that every force is far from zero."""
    return Structure(SYMBOLS, anchors + rng.normal(0, 0.2, (6, 3)), CELL)


@pytest.fixture
def backend(anchors):
    return HarmonicBackend(K, anchors, CELL)


SWAP = Transformation(SYMBOLS, ("Sn", "I", "Cs", "Sn", "I", "I"))
VOID = Transformation(SYMBOLS, ("Pb", "I", "Cs", None, "I", "I"))
EINSTEIN = Transformation(SYMBOLS, SYMBOLS, einstein=True)
OPTIONS = {
    "alchemical": (SWAP, {}),
    "linear": (SWAP, {"interpolation": "linear"}),
    "void": (VOID, {"tether": 4.2}),
    "void linear": (VOID, {"tether": 4.2, "interpolation": "linear"}),
    "einstein": (EINSTEIN, {}),
}


def options(path, anchors):
    transformation, extra = OPTIONS[path]
    if transformation.einstein:
        # springs of their own, elsewhere than the backend's
        extra = {**extra, "springs": (anchors + 0.05, np.linspace(1.0, 6.0, 6))}
    return transformation, extra


@pytest.fixture(params=OPTIONS)
def path(request, backend, structure, anchors):
    """A Hamiltonian for each kind of path, and a point away from every special one."""
    transformation, extra = options(request.param, anchors)
    return build(transformation, backend, structure, **extra)


def moved(structure, rng):
    return structure.positions + rng.normal(0, 0.1, structure.positions.shape)


def numerical_forces(h, x, cell, lam, step=1e-4):
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        up, down = (h.evaluate(x + s * shift, cell, lam).energy for s in (1, -1))
        out[index] = -(up - down) / (2 * step)
    return out


def numerical_virial(h, x, cell, lam, step=1e-4):
    out = np.zeros((3, 3))
    for index in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[index] = step
        up, down = (
            h.evaluate(x @ (np.eye(3) + s * strain), cell @ (np.eye(3) + s * strain), lam).energy
            for s in (1, -1)
        )
        out[index] = -(up - down) / (2 * step)
    return out


@pytest.mark.parametrize("lam", LAMBDAS)
def test_forces_virial_and_slope_are_derivatives(path, structure, rng, lam):
    x = moved(structure, rng)
    e = path.evaluate(x, CELL, lam)
    assert np.abs(e.forces).max() > 1e-3
    assert np.abs(e.virial).max() > 1e-3
    assert abs(e.dHdlambda) > 1e-3
    np.testing.assert_allclose(e.forces, numerical_forces(path, x, CELL, lam), atol=1e-8)
    np.testing.assert_allclose(e.virial, numerical_virial(path, x, CELL, lam), atol=1e-8)
    np.testing.assert_allclose(e.virial, e.virial.T, atol=1e-13)
    up, down = (path.evaluate(x, CELL, lam + s * 1e-4).energy for s in (1, -1))
    assert e.dHdlambda == pytest.approx((up - down) / 2e-4, abs=1e-8)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_wrapped_and_unwrapped_positions_are_the_same(path, structure, rng, lam):
    x = moved(structure, rng)
    images = rng.integers(-3, 4, x.shape) @ CELL
    a, b = path.evaluate(x, CELL, lam), path.evaluate(x + images, CELL, lam)
    for name in ("energy", "forces", "virial", "dHdlambda"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-11)


def test_anchors_ride_with_the_cell(path, structure, anchors):
    """A crystal on its sites stays at the same energy under any strain."""
    strain = np.eye(3) + np.array([[0.05, 0.02, -0.03], [0.0, -0.04, 0.01], [0.02, 0.0, 0.03]])
    springs = Springs(anchors, np.ones(6), CELL)
    assert springs.evaluate(anchors @ strain, CELL @ strain, 0.0).energy < 1e-25


def test_einstein_end_is_exactly_the_springs(backend, structure, anchors, rng):
    k = np.linspace(1.0, 6.0, 6)
    h = build(EINSTEIN, backend, structure, springs=(anchors, k))
    x = anchors + (d := rng.normal(0, 0.1, (6, 3)))
    e = h.evaluate(x, CELL, 0.0)
    assert e.energy == pytest.approx(0.5 * np.sum(k[:, None] * d**2), rel=1e-14)
    np.testing.assert_allclose(e.forces, -k[:, None] * d, atol=1e-13)
    model = 0.5 * sum(K[s] * (v @ v) for s, v in zip(SYMBOLS, d, strict=True))
    assert h.evaluate(x, CELL, 1.0).energy == pytest.approx(model, rel=1e-14)
    # the weight of the model is 0 at λ=0; its energy is in dH/dλ all the same
    assert e.dHdlambda == pytest.approx(model - e.energy, rel=1e-13)


def test_tether_alone_holds_the_removed_atom(backend, structure, anchors):
    """λ=0: the perfect crystal, no tether.  λ=1: no model force on the void, only its tether."""
    h = build(VOID, backend, structure, tether=4.2)
    d = np.array([0.1, -0.2, 0.05])
    x = structure.positions.copy()
    x[3] += d
    perfect = Hamiltonian(
        [*build(Transformation(SYMBOLS, SYMBOLS), backend, structure).terms], n_atoms=6
    )
    start, end = h.evaluate(x, CELL, 0.0), h.evaluate(x, CELL, 1.0)
    plain = perfect.evaluate(x, CELL, 0.3)
    assert start.energy == plain.energy
    assert plain.dHdlambda == 0.0
    np.testing.assert_array_equal(start.forces, plain.forces)
    np.testing.assert_allclose(end.forces[3], -4.2 * d, atol=1e-13)
    away = structure.positions - anchors
    rest = sum(0.5 * K[SYMBOLS[i]] * (away[i] @ away[i]) for i in range(6) if i != 3)
    assert end.energy == pytest.approx(rest + 0.5 * 4.2 * (d @ d), rel=1e-13)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_linear_is_the_mixture_of_two_plain_models(backend, structure, rng, lam):
    x = moved(structure, rng)
    h = build(SWAP, backend, structure, interpolation="linear")
    final = Structure(SWAP.final, structure.positions, CELL)
    a = build(Transformation(SYMBOLS, SYMBOLS), backend, structure).evaluate(x, CELL, lam)
    b = build(Transformation(SWAP.final, SWAP.final), backend, final).evaluate(x, CELL, lam)
    e = h.evaluate(x, CELL, lam)
    assert e.energy == pytest.approx((1 - lam) * a.energy + lam * b.energy, rel=1e-14)
    np.testing.assert_allclose(e.virial, (1 - lam) * a.virial + lam * b.virial, atol=1e-13)
    assert e.dHdlambda == pytest.approx(b.energy - a.energy, rel=1e-13)


def test_weights_and_their_slopes():
    assert fading(0.25) == (0.75, -1.0)
    assert growing(0.25) == (0.25, 1.0)


def test_scaled_obeys_the_product_rule(anchors, rng):
    """λ(1 − λ) E: a weight on a term that depends on λ itself."""
    springs = Springs(anchors, np.ones(6), CELL)
    x = anchors + rng.normal(0, 0.1, (6, 3))
    energy = springs.evaluate(x, CELL, 0.0).energy
    e = Scaled(Scaled(springs, fading), growing).evaluate(x, CELL, 0.3)
    assert e.energy == pytest.approx(0.21 * energy, rel=1e-14)
    assert e.dHdlambda == pytest.approx((1 - 2 * 0.3) * energy, rel=1e-14)


def test_minimum_image_in_a_skewed_cell_is_the_shortest(rng):
    """Compared with a search over 7³ images, for vectors below half the shortest height."""
    heights = 1 / np.linalg.norm(np.linalg.inv(CELL), axis=0)
    v = rng.normal(size=(200, 3))
    v *= (0.499 * heights.min() * rng.random(200) / np.linalg.norm(v, axis=1))[:, None]
    lattice = np.array(list(np.ndindex(7, 7, 7))) - 3
    far = v + rng.integers(-1, 2, v.shape) @ CELL
    candidates = far[:, None] + (lattice @ CELL)[None]
    shortest = np.linalg.norm(candidates, axis=2).min(axis=1)
    found = minimum_image(far, CELL)
    np.testing.assert_allclose(found, v, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), shortest, atol=1e-12)


def test_minimum_image_leaves_open_directions_alone():
    cell = np.diag([4.0, 4.0, 4.0])
    v = np.array([[3.9, 0.0, 1.9]])
    np.testing.assert_allclose(minimum_image(v, cell, (True, False, False)), [[-0.1, 0.0, 1.9]])


def test_an_atom_far_from_its_anchor_is_refused(anchors):
    """From half the shortest height of the cell on, measured along that height."""
    cell = np.array([[5.0, 0.0, 0.0], [4.0, 3.0, 0.0], [1.0, 2.0, 7.0]])
    volume = np.linalg.det(cell)
    normals = np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]])
    heights = volume / np.linalg.norm(normals, axis=1)
    direction = normals[heights.argmin()] / np.linalg.norm(normals[heights.argmin()])
    springs = Springs(anchors[[3]], np.ones(1), cell, atoms=[3])
    x, near, far = anchors.copy(), 0.499 * heights.min(), 0.501 * heights.min()
    x[3] = anchors[3] + near * direction
    assert springs.evaluate(x, cell, 0.0).energy == pytest.approx(0.5 * near**2, rel=1e-12)
    x[3] = anchors[3] + far * direction
    with pytest.raises(RunError, match=r"^atom 3 is .* from its anchor[^\n]*$"):
        springs.evaluate(x, cell, 0.0)


def test_springs_touch_only_their_atoms(anchors, rng):
    x = anchors + rng.normal(0, 0.1, (6, 3))
    e = Springs(anchors[[4, 1]], np.array([1.0, 2.0]), CELL, atoms=[4, 1]).evaluate(x, CELL, 0.5)
    np.testing.assert_allclose(e.forces[4], -1.0 * (x - anchors)[4], atol=1e-13)
    np.testing.assert_allclose(e.forces[1], -2.0 * (x - anchors)[1], atol=1e-13)
    assert not e.forces[[0, 2, 3, 5]].any()


class Broken:
    def __init__(self, **values):
        self.values = {
            "energy": 0.0,
            "forces": np.zeros((6, 3)),
            "virial": np.zeros((3, 3)),
            "dHdlambda": 0.0,
            **values,
        }

    def evaluate(self, positions, cell, lam):
        return Evaluation(**self.values)

    def __repr__(self):
        return "broken term"


@pytest.mark.parametrize(
    "values",
    [
        {"energy": np.nan},
        {"forces": np.full((6, 3), np.inf)},
        {"virial": np.full((3, 3), np.nan)},
        {"dHdlambda": np.inf},
    ],
)
def test_values_that_are_not_finite_name_the_term(anchors, values):
    h = Hamiltonian([Scaled(Broken(), growing), Broken(**values)])
    name = next(iter(values))
    with pytest.raises(
        RunError, match=rf"^broken term: {name} is not finite at lambda = 0.5[^\n]*$"
    ):
        h.evaluate(anchors, CELL, 0.5)
    # a weight of exactly 0 does not hide it
    with pytest.raises(RunError, match="not finite"):
        Hamiltonian([Scaled(Broken(energy=np.nan), growing)]).evaluate(anchors, CELL, 0.0)


def test_positions_are_checked(backend, structure):
    h = build(SWAP, backend, structure)
    for x in (structure.positions[:5], structure.positions * np.nan):
        with pytest.raises(RunError):
            h.evaluate(x, CELL, 0.5)
    with pytest.raises(RunError, match="finite"):
        h.evaluate(structure.positions, CELL, np.nan)


@pytest.mark.parametrize(
    ("transformation", "extra", "message"),
    [
        (VOID, {}, "needs tether"),
        (VOID, {"tether": 0.0}, "positive spring constant"),
        (VOID, {"tether": np.inf}, "positive spring constant"),
        (SWAP, {"tether": 1.0}, "remove it"),
        (EINSTEIN, {}, "needs springs"),
        (EINSTEIN, {"springs": (np.zeros((5, 3)), np.ones(5))}, "expected 6 anchors, got 5"),
        (EINSTEIN, {"springs": (np.zeros((6, 3)), np.array([1, 1, -1, 1, 1, 1]))}, "number 2"),
        (EINSTEIN, {"springs": (np.zeros((6, 3)), np.ones(5))}, "shapes"),
        (EINSTEIN, {"springs": (np.full((6, 3), np.nan), np.ones(6))}, "not finite"),
        (SWAP, {"springs": (np.zeros((6, 3)), np.ones(6))}, "remove them"),
        (SWAP, {"interpolation": "cubic"}, "alchemical or linear"),
        (Transformation(("Pb",), ("Sn",)), {}, "1 atoms"),
    ],
)
def test_bad_compositions_are_refused(backend, structure, transformation, extra, message):
    with pytest.raises(InputError, match=message) as caught:
        build(transformation, backend, structure, **extra)
    assert "\n" not in str(caught.value)


def test_an_unknown_element_is_a_model_error(backend, structure):
    other = Transformation(SYMBOLS, ("Ge", *SYMBOLS[1:]))
    with pytest.raises(ModelError, match="Ge"):
        build(other, backend, structure)


# --- with MACE ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mace():
    """A small MACE with random weights, its backend, and eight atoms of sheared salt."""
    from helpers import mace_zoo as zoo

    from alchemdriver.potential.backends.mace import MaceBackend

    model = zoo.make_model("Residual", "Residual")
    structure = zoo.salt()
    final = ("K", "K", *structure.symbols[2:])
    return model, MaceBackend(model, "zoo"), structure, Transformation(structure.symbols, final)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_linear_is_the_mixture_of_two_stock_mace_evaluations(mace, lam):
    from helpers.mace_zoo import stock

    model, backend, structure, swap = mace
    a, b = stock(model, structure), stock(model, structure, swap.final)
    h = build(swap, backend, structure, interpolation="linear")
    e = h.evaluate(structure.positions, structure.cell, lam)
    assert e.energy == pytest.approx((1 - lam) * a.energy + lam * b.energy, rel=1e-12)
    np.testing.assert_allclose(e.forces, (1 - lam) * a.forces + lam * b.forces, atol=1e-11)
    np.testing.assert_allclose(e.virial, (1 - lam) * a.virial + lam * b.virial, atol=1e-11)
    assert e.dHdlambda == pytest.approx(b.energy - a.energy, rel=1e-11)


@pytest.mark.parametrize("interpolation", ["alchemical", "linear"])
def test_vacancy_path_ends_in_stock_mace_and_a_tethered_atom(mace, interpolation):
    from helpers.mace_zoo import stock

    model, backend, structure, _ = mace
    final = (*structure.symbols[:3], None, *structure.symbols[4:])
    vacancy = Transformation(structure.symbols, final)
    h = build(vacancy, backend, structure, tether=4.2, interpolation=interpolation)
    d = np.array([0.1, -0.05, 0.2])
    x = structure.positions.copy()
    x[3] += d
    moved = Structure(structure.symbols, x, structure.cell)
    start, perfect = h.evaluate(x, structure.cell, 0.0), stock(model, moved)
    assert start.energy == pytest.approx(perfect.energy, rel=1e-12)
    np.testing.assert_allclose(start.forces, perfect.forces, atol=1e-11)
    end, rest = h.evaluate(x, structure.cell, 1.0), stock(model, moved, final)
    assert end.energy == pytest.approx(rest.energy + 2.1 * (d @ d), rel=1e-12)
    np.testing.assert_allclose(end.forces[3], -4.2 * d, atol=1e-12)  # no model force at all
    np.testing.assert_allclose(np.delete(end.forces - rest.forces, 3, axis=0), 0, atol=1e-11)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_derivatives_of_the_vacancy_path_with_mace(mace, lam, rng):
    """Along random directions: the full set of differences is in the harmonic test."""
    _, backend, structure, _ = mace
    final = ("K", "K", None, *structure.symbols[3:])
    h = build(Transformation(structure.symbols, final), backend, structure, tether=4.2)
    x, cell, step = structure.positions + rng.normal(0, 0.05, (8, 3)), structure.cell, 1e-4
    e = h.evaluate(x, cell, lam)

    def slope(energy):
        return (energy(step) - energy(-step)) / (2 * step)

    u = rng.normal(size=x.shape)
    strain = rng.normal(size=(3, 3))
    numerical = slope(lambda t: h.evaluate(x + t * u, cell, lam).energy)
    assert -np.sum(e.forces * u) == pytest.approx(numerical, abs=1e-6)

    def strained(t):
        m = np.eye(3) + t * strain
        return h.evaluate(x @ m, cell @ m, lam).energy

    assert -np.sum(e.virial * strain) == pytest.approx(slope(strained), abs=1e-5)
    numerical = slope(lambda t: h.evaluate(x, cell, lam + t).energy)
    assert e.dHdlambda == pytest.approx(numerical, abs=1e-6)


# --- springs files --------------------------------------------------------------------------


def write_springs(folder, structure, constants=None):
    atoms = ase.Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=True)
    if constants is not None:
        atoms.set_array("spring_constant", np.asarray(constants))
    ase.io.write(folder / "einstein.extxyz", atoms, format="extxyz")
    return folder / "einstein.extxyz"


def test_springs_file_round_trip(tmp_path, structure):
    k = np.linspace(1.0, 6.0, 6)
    anchors, constants = read_springs(write_springs(tmp_path, structure, k), structure)
    np.testing.assert_allclose(anchors, structure.positions, atol=1e-7)
    np.testing.assert_allclose(constants, k, atol=1e-7)


def test_springs_of_another_crystal_are_refused(tmp_path, structure):
    path = write_springs(tmp_path, structure, np.ones(6))
    swapped = Structure(("I", "Pb", *SYMBOLS[2:]), structure.positions, CELL)
    with pytest.raises(InputError, match="atom 0 is Pb, expected I"):
        read_springs(path, swapped)
    with pytest.raises(InputError, match="cell differs"):
        read_springs(path, Structure(SYMBOLS, structure.positions, CELL * 1.01))
    with pytest.raises(InputError, match="expected 5 atoms"):
        read_springs(path, Structure(SYMBOLS[:5], structure.positions[:5], CELL))


def test_bad_springs_files_give_one_line(tmp_path, structure):
    def refused(path, message):
        with pytest.raises(InputError, match=message) as caught:
            read_springs(path)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "absent.extxyz", "cannot be read")
    refused(write_springs(tmp_path, structure), "per-atom array spring_constant")
    refused(write_springs(tmp_path, structure, [1, 1, 0.0, 1, 1, 1]), "number 2 is 0")
    refused(write_springs(tmp_path, structure, [1, np.nan, 1, 1, 1, 1]), "number 1 is nan")
    refused(write_springs(tmp_path, structure, np.ones((6, 2))), "one number per atom")
    refused(write_springs(tmp_path, structure, list("abcdef")), "one number per atom")
    junk = tmp_path / "junk.extxyz"
    junk.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    refused(junk, "not an extxyz file")
    junk.write_text("")
    refused(junk, "not an extxyz file")


def test_importing_needs_no_torch():
    code = "import sys, alchemdriver.potential.hamiltonian; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
