"""Order and disorder: lists, energies per formula unit, fingerprints, ranking; and schemes."""

from __future__ import annotations

import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from alchemdriver.composition import order
from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.order import Case
from alchemdriver.composition.relaxation import Settings
from alchemdriver.composition.schemes import compare, time_per_step
from alchemdriver.composition.supercells import distinct_orderings, primitive
from alchemdriver.errors import InputError
from alchemdriver.potential.open import open_model

IODIDE = Case("Cs", ("Pb", "Sn"), "I", 6.35, "disordered")
HEADER = "A,B1,B2,X,a,label\n"


@pytest.fixture(scope="module")
def demo():
    return open_model("demo")


# --- lists ------------------------------------------------------------------------------------


def test_list_with_comments_and_unknown_labels(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(f"# source\n{HEADER}Ba,Mg,W,O,4.05,ordered\n\nSr, Fe ,Nb,O,3.98,\n")
    cases = order.read_cases(path)
    assert [c.name for c in cases] == ["Ba2MgWO6", "Sr2FeNbO6"]
    assert [c.label for c in cases] == ["ordered", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A,B\n", "expected a header A,B1,B2,X,a,label"),
        (HEADER + "Ba,Mg,W,O,4.05\n", "line 2: expected 6 columns, got 5"),
        (HEADER + "Ba,Mg,Wq,O,4.05,ordered\n", "line 2: 'Wq' is not an element"),
        (HEADER + "Ba,Mg,W,O,four,ordered\n", "line 2: expected a cubic edge"),
        (HEADER + "Ba,Mg,W,O,4.05,yes\n", "line 2: label"),
        (HEADER + "Ba,Mg,W,O,4,\nBa,Mg,W,O,4.1,\n", "line 3: Ba2MgWO6 is there already"),
    ],
)
def test_bad_lists_are_one_line(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        order.read_cases(tmp_path / "list.csv")


# --- energies ---------------------------------------------------------------------------------


def test_study_gives_energies_per_formula_unit_and_resumes(tmp_path, demo, monkeypatch):
    """All six orderings; an element with itself has no ordering energy, whatever the cell."""
    same = Case("Cs", ("Pb", "Pb"), "I", 6.38, None)
    settings = Settings(force=2e-2, stress=5e-4, optimiser="bfgs")
    seen = []
    results = order.study(
        [same], demo, tmp_path / "j.jsonl", settings, report=lambda name, _: seen.append(name)
    )[same.name]
    # with B' = B'' all arrangements are the cubic crystal, whatever their colours were
    assert len(results) == 7
    assert all(name.startswith(("mixed 1", "ordered Pm-3m")) for name in results)
    energies = [entry.energy_eV for entry in results.values()]
    assert max(energies) - min(energies) < 1e-5
    assert order.ordering_energy(results, "mixed 1") == pytest.approx(0.0, abs=1e-5)
    assert results["mixed 1"].volume_A3 == pytest.approx(2 * 6.39**3, rel=0.02)
    monkeypatch.setattr(order, "relax_atoms", None)  # nothing is computed again
    monkeypatch.setattr(order, "relax", None)
    again = order.study([same], demo, tmp_path / "j.jsonl", settings)
    assert again[same.name]["mixed 1"] == results["mixed 1"]


def test_octahedra_tilt_in_large_cells_only_and_only_without_symmetry(tmp_path, demo, monkeypatch):
    """Cubic CsPbI3 lies above its tilted forms, which need two cells along each axis."""
    rock_salt = distinct_orderings(IODIDE.mixture(2), [0.5, 0.5])[:1]
    monkeypatch.setattr(order, "distinct_orderings", lambda *args: rock_salt)
    energy = {}
    for symmetry, sizes in ((True, (1, 2)), (False, (2,))):
        settings = Settings(symmetry=symmetry, force=5e-2, stress=1e-3, optimiser="bfgs")
        done = order.study([IODIDE], demo, tmp_path / f"{symmetry}.jsonl", settings, sizes)
        energy[symmetry] = {name: e.energy_eV for name, e in done[IODIDE.name].items()}
    assert energy[True]["mixed 2"] == pytest.approx(energy[True]["mixed 1"], abs=1e-4)
    for name in ("mixed 2", "ordered Fm-3m 2"):
        assert energy[False][name] < energy[True][name] - 0.05
    with pytest.raises(InputError, match="no ordering has at most 10 atoms"):
        order.study([IODIDE], demo, tmp_path / "x.jsonl", settings, largest=10)


def test_primitive_cells_have_the_energy_of_the_whole_arrangement(demo):
    ordering = distinct_orderings(IODIDE.mixture(2), [0.5, 0.5])[0]
    from alchemdriver import AlchemicalCalculator

    small, energies = primitive(ordering.atoms), []
    for atoms in (ordering.atoms, small):
        atoms.calc = AlchemicalCalculator(atoms, [], [], model=demo)
        energies.append(atoms.get_potential_energy() / len(atoms))
    assert len(small) == 10
    assert energies[0] == pytest.approx(energies[1], abs=1e-10)


def test_fingerprints_do_not_see_which_b_is_where_or_how_large_the_cell_is():
    mixed = IODIDE.mixture(1).atoms
    ordered = distinct_orderings(IODIDE.mixture(2), [0.5, 0.5])[0].atoms
    a, b = (order.fingerprint(x, IODIDE) for x in (mixed, ordered))
    assert order.cosine_distance(a, b) == pytest.approx(0.0, abs=1e-12)
    rattled = ordered.copy()
    rattled.rattle(0.2, seed=1)
    assert order.cosine_distance(a, order.fingerprint(rattled, IODIDE)) > 1e-3


# --- ranking ----------------------------------------------------------------------------------


def results_of(energies):
    def entry(energy):
        return order.Entry(energy, 300.0, 10, 0.0)

    ordered = {"ordered x": entry(0.0), "ordered y": entry(9.0)}
    return {name: {"mixed 1": entry(e), **ordered} for name, e in energies.items()}


def cases_of(labels):
    elements = ["Mg", "Ca", "Sr", "Ba", "Ti", "Zr", "Hf", "Nb", "Ta", "Mo", "W", "Fe"]
    return [
        Case("La", (e, "Y"), "O", 4.0, label) for e, label in zip(elements, labels, strict=False)
    ]


def test_auc_is_that_of_scikit_learn_and_its_p_value_counts_deals():
    labels = ["ordered"] * 5 + ["disordered"] * 5
    cases = cases_of(labels)
    energies = dict(zip([c.name for c in cases], [5, 4, 4, 1, -2, 4, 0, -1, -3, 2.5], strict=True))
    found = order.rank(results_of(energies), cases)
    expected = roc_auc_score([c.label == "ordered" for c in cases], list(energies.values()))
    assert found.auc == pytest.approx(expected, abs=1e-15)
    assert found.roc[0].tolist() == [0, 0]
    assert found.roc[-1].tolist() == [1, 1]
    assert np.trapezoid(found.roc[:, 1], found.roc[:, 0]) == pytest.approx(expected, abs=1e-12)
    perfect = order.rank(results_of({c.name: -n for n, c in enumerate(cases)}), cases)
    assert perfect.auc == 1.0
    assert perfect.p_value == pytest.approx(1 / 252)  # one of the ways to choose 5 of 10


def test_ranking_needs_both_labels_and_ignores_unlabelled_ones():
    cases = cases_of(["ordered", None, "disordered"])
    energies = {c.name: n for n, c in enumerate(cases)}
    assert len(order.rank(results_of(energies), cases).names) == 2
    with pytest.raises(InputError, match="at least one ordered and one disordered"):
        order.rank(results_of(energies), cases[:2])


# --- schemes ----------------------------------------------------------------------------------


def salt_of_iodide():
    """Cubic CsPbI3; only elements of the embedded model."""
    return Mixture.from_text(IODIDE.parent(), ["Pb->Sn"])


@pytest.mark.parametrize("model", ["demo", "chgnet-0.3.0"])
def test_schemes_share_their_ends_and_only_the_asymmetric_one_is_nearly_linear(model):
    """Fig. S1: symmetric weights lose interactions in between, a mixed embedding means nothing."""
    if model != "demo":
        pytest.importorskip("chgnet", reason="the optional package chgnet is not installed")
    found = compare(salt_of_iodide(), open_model(model), [0.0, 0.25, 0.5, 1.0])
    worst = {}
    for scheme in found.energies:
        deviation = found.deviation(scheme)
        assert np.abs(deviation[[0, -1]]).max() < 1e-9, scheme
        worst[scheme] = np.abs(deviation).max()
    assert worst["symmetric"] > 10 * worst["asymmetric"]
    assert worst["embedding"] > worst["asymmetric"]
    assert found.deviation("symmetric")[2] > 0.1


def test_symmetric_gradient_is_exact_too():
    """E(λ, λ²): its chain rule against differences, so that ω = λ_α λ_β is what is computed."""
    from alchemdriver.composition.schemes import SymmetricSites
    from alchemdriver.potential.checks import difference_quotient

    m = salt_of_iodide()
    m.atoms.rattle(0.1, seed=1)
    potential = open_model("demo").reference(SymmetricSites.of(m.sites))
    args = (m.atoms.positions, m.atoms.cell.array, (True,) * 3)
    w = np.array([0.6, 0.4])
    g = potential.evaluate(*args, np.concatenate([w, w**2])).weight_gradient
    for a, e in enumerate(np.eye(2)):
        expected = difference_quotient(
            lambda t, e=e: (
                potential.evaluate(*args, np.concatenate([w + t * e, (w + t * e) ** 2])).energy
            ),
            1e-3,
        )
        assert g[a] + 2 * w[a] * g[2 + a] == pytest.approx(expected, rel=1e-8)


def test_other_mixtures_and_models_are_refused():
    three = Mixture.from_text(IODIDE.parent(), ["Pb->Sn->Cs"])
    with pytest.raises(InputError, match="two states"):
        compare(three, open_model("demo"), [0.5])
    assert set(time_per_step(salt_of_iodide(), open_model("demo"), 1)) == {
        "linear",
        "alchemical",
    }
