"""Mixed sublattices: their text, their weights, supercells with whole atoms, journals."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from matscipy.neighbours import neighbour_list

from alchemdriver.composition.journal import Crystal, Journal
from alchemdriver.composition.mixture import Mixture, parse_composition
from alchemdriver.composition.order import Case
from alchemdriver.composition.scan import compositions_along, simplex_grid, vegard
from alchemdriver.composition.supercells import (
    atom_counts,
    distinct_orderings,
    primitive,
    random_cells,
    sqs,
)
from alchemdriver.errors import InputError, ModelError, RunError

SALT = bulk("NaCl", "rocksalt", a=5.64, cubic=True)  # Na at 0, 2, 4, 6
PEROVSKITE = Case("Ba", ("Mg", "W"), "O", 4.05, "ordered")


def test_states_of_one_sublattice():
    mixture = Mixture.from_text(SALT, ["Na->Li->K"])
    assert mixture.n_states == (3,)
    assert mixture.sublattices[0][1] == dict.fromkeys((0, 2, 4, 6), "Li")
    assert mixture.sites.groups == (0, 0, 0)
    assert mixture.describe(mixture.weights([[0.2, 0.3, 0.5]])) == "Na 0.2 Li 0.3 K 0.5"
    assert str(mixture.pure([2]).symbols) == str(bulk("KCl", "rocksalt", a=5, cubic=True).symbols)


def test_sublattices_are_independent_groups_and_terms_are_not():
    two = Mixture.from_text(SALT, ["Na[0;2]->K", "Cl -> Br"])
    assert two.sites.groups == (0, 0, 1, 1)
    assert two.weights([[0.5, 0.5], [0.1, 0.9]]).tolist() == [0.5, 0.5, 0.1, 0.9]
    one = Mixture.from_text(SALT, ["Na->K Cl->Br"])
    assert one.labels == (("Na+Cl", "K+Br"),)
    assert one.sites.groups == (0, 0)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["Na"], "expected ELEMENT->ELEMENT"),
        ([], "at least one"),
        (["Mg->Ca"], "the structure has no Mg, only Cl, Na"),
        (["Na->Xx"], "not an element"),
        (["Na->na"], "did you mean 'Na'"),
        (["Na->Na"], "the same element twice"),
        (["Na[9]->K"], "out of range"),
        (["Na[1]->K"], "atom 1 is Cl"),
        (["Na->K", "Na[0]->Li"], "site 0 is in two sublattices"),
        (["Na->K Cl->Br->I"], "same number of states"),
    ],
)
def test_bad_sublattices_are_one_line(texts, message):
    with pytest.raises(InputError, match=message) as caught:
        Mixture.from_text(SALT, texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5", "expected 2 numbers"),
        ("0.5,x", "expected numbers such as"),
        ("0.5,0.6", "sum to 1"),
        ("1.1,-0.1", "from 0 to 1"),
        ("nan,1", "from 0 to 1"),
    ],
)
def test_bad_compositions_are_one_line(text, message):
    with pytest.raises(InputError, match=message):
        parse_composition(text, ("Na", "K"))


def test_a_molecule_is_refused():
    free = SALT.copy()
    free.pbc = (True, True, False)
    with pytest.raises(InputError, match="crystal"):
        Mixture.from_text(free, ["Na->K"])


def test_kinds_of_sites_for_symmetry():
    """One of four sodium atoms mixed: it is no longer equivalent to the others."""
    mixture = Mixture.from_text(SALT, ["Na[0]->K"])
    numbers = mixture.labelled().numbers
    assert len(set(numbers[[2, 4, 6]])) == 1
    assert numbers[0] not in numbers[1:]


# --- whole atoms ------------------------------------------------------------------------------


def test_random_cells_have_the_composition_and_the_seed():
    mixture = Mixture.from_text(SALT.repeat((2, 1, 1)), ["Na->K", "Cl->Br"])
    w = mixture.weights([[0.75, 0.25], [0.5, 0.5]])
    cells = random_cells(mixture, w, 5, seed=3)
    for atoms in cells:
        symbols = list(atoms.symbols)
        assert [symbols.count(s) for s in ("Na", "K", "Cl", "Br")] == [6, 2, 4, 4]
    again = random_cells(mixture, w, 5, seed=3)
    assert all((a.numbers == b.numbers).all() for a, b in zip(cells, again, strict=True))
    assert any((a.numbers != cells[0].numbers).any() for a in cells)
    with pytest.raises(InputError, match=r"nearest: 5/8, 3/8"):
        atom_counts(mixture, mixture.weights([[0.6, 0.4], [0.5, 0.5]]))


def test_random_cells_are_uniform_over_colourings():
    """6 colourings of 2 among 4 sites, 600 samples: χ² (5 degrees of freedom) below 20.5, 0.1 %."""
    mixture = Mixture.from_text(SALT, ["Na->K"])
    counts: dict[str, int] = {}
    for atoms in random_cells(mixture, [0.5, 0.5], 600, seed=0):
        counts[str(atoms.symbols)] = counts.get(str(atoms.symbols), 0) + 1
    assert len(counts) == 6
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 20.5


def test_perovskite_has_six_orderings_that_are_all_seventy():
    """Fig. 4e of the journal version: every cation-ordered 2×2×2 cell."""
    orderings = distinct_orderings(PEROVSKITE.mixture(2), [0.5, 0.5])
    assert [o.degeneracy for o in orderings] == [2, 6, 6, 8, 24, 24]
    assert sum(o.degeneracy for o in orderings) == comb(8, 4)
    assert orderings[0].spacegroup == "Fm-3m"  # rock salt, the elpasolite type
    assert [len(primitive(o.atoms)) for o in orderings[:3]] == [10, 10, 10]


def test_orderings_are_inequivalent():
    """Space group and distances between W atoms, which symmetry cannot change, tell six apart."""
    seen = set()
    for o in distinct_orderings(PEROVSKITE.mixture(2), [0.5, 0.5]):
        w = [i for i, s in enumerate(o.atoms.symbols) if s == "W"]
        d = o.atoms.get_all_distances(mic=True)[np.ix_(w, w)]
        seen.add((o.spacegroup, tuple(sorted(np.round(d.ravel(), 3)))))
    assert len(seen) == 6


def test_orderings_of_other_ratios_and_of_too_many_sites():
    quarter = distinct_orderings(Mixture.from_text(SALT, ["Na->K"]), [0.75, 0.25])
    assert [o.degeneracy for o in quarter] == [4]
    large = Mixture.from_text(SALT.repeat(2), ["Na->K"])
    with pytest.raises(InputError, match="too many"):
        distinct_orderings(large, [0.5, 0.5])


def test_quasirandom_cell_is_less_ordered_than_random_ones():
    """Its first-shell Warren–Cowley parameter is nearer to 0 than the median of random ones."""
    pytest.importorskip("sqsgenerator", reason="the optional package sqsgenerator is missing")
    mixture = Mixture.from_text(SALT.repeat(2), ["Na->K"])

    def short_range_order(atoms):
        """1 − P(Na next to K)/x_Na over first neighbours of the cation lattice."""
        first, second = neighbour_list("ij", atoms, 5.64 / np.sqrt(2) + 0.1)
        k = np.array([s == "K" for s in atoms.symbols])
        cation = k | np.array([s == "Na" for s in atoms.symbols])
        around_k = k[first] & cation[second]
        return 1.0 - np.mean(~k[second[around_k]]) / 0.5

    found = sqs(mixture, [0.5, 0.5], seed=2, iterations=20_000)
    assert list(found.symbols).count("K") == 16
    others = [abs(short_range_order(a)) for a in random_cells(mixture, [0.5, 0.5], 20, seed=1)]
    assert abs(short_range_order(found)) < np.median(others)


def test_quasirandom_cell_is_the_same_every_time():
    """Many colourings are equally good; the package's own best() takes any of them, by chance."""
    pytest.importorskip("sqsgenerator", reason="the optional package sqsgenerator is missing")
    mixture = Mixture.from_text(SALT.repeat(2), ["Na->K"])
    cells = [sqs(mixture, [0.5, 0.5], seed=2, iterations=1000).numbers.tolist() for _ in range(12)]
    assert all(numbers == cells[0] for numbers in cells)
    assert cells[0] != sqs(mixture, [0.5, 0.5], seed=3, iterations=1000).numbers.tolist()


def test_without_sqsgenerator_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sqsgenerator", None)
    with pytest.raises(ModelError, match=r"alchemdriver\[sqs\]"):
        sqs(Mixture.from_text(SALT, ["Na->K"]), [0.5, 0.5], seed=1)


# --- scans and journals -----------------------------------------------------------------------


def test_compositions_along_and_on_a_grid():
    assert compositions_along(3) == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    grid = simplex_grid(3, 4)
    assert len(grid) == comb(6, 2)
    assert all(sum(w) == pytest.approx(1.0, abs=1e-15) for w in grid)


@settings(max_examples=30, deadline=None)
@given(st.floats(-10, 10), st.floats(-10, 10))
def test_vegards_line_is_the_weighted_mean(a, b):
    w = np.array(compositions_along(5))
    values = np.array([a, 7.0, -3.0, 0.1, b])
    assert vegard(w, values) == pytest.approx(np.linspace(a, b, 5), abs=1e-12)
    assert vegard(w[1:], values[1:]) is None


def test_a_journal_resumes_refuses_other_settings_and_mends_a_cut_line(tmp_path, caplog):
    path = tmp_path / "deep" / "a.jsonl"
    first = Journal(path, {"model": "m", "x": (1, 2)}, dict[str, float])
    first.add("a", {"value": 0.1 + 0.2})
    first.add("b", {"value": 2})
    with open(path, "a") as stream:
        stream.write('{"key": "c", "val')
    second = Journal(path, {"model": "m", "x": (1, 2)}, dict[str, float])
    assert "cut short" in caplog.text
    assert second.get("a")["value"] == 0.1 + 0.2  # every bit
    assert second.get("c") is None
    second.add("c", {"value": 3})
    assert set(Journal(path, {"model": "m", "x": (1, 2)}, dict[str, float]).records) == {
        "a",
        "b",
        "c",
    }
    with pytest.raises(RunError, match=r"other settings \(model\)"):
        Journal(path, {"model": "n", "x": (1, 2)}, dict[str, float])
    (tmp_path / "b.jsonl").write_text("hello\n")
    with pytest.raises(RunError, match="not a journal"):
        Journal(tmp_path / "b.jsonl", {}, dict[str, float])


def test_crystals_survive_the_journal():
    atoms = SALT.copy()
    atoms.rattle(0.1, seed=1)
    back = Crystal.of(atoms).atoms()
    assert np.abs(back.positions - atoms.positions).max() < 1e-12
    assert (back.numbers == atoms.numbers).all()
