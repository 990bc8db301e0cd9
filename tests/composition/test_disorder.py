"""Files with partly occupied sites: mixed sites as they stand, or cells of whole atoms."""

from __future__ import annotations

import json
from collections import Counter

import ase.io
import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
from prepare.test_structure import CIF

from alchemdriver import AlchemicalCalculator
from alchemdriver.cli import main
from alchemdriver.composition.disorder import read_mixture
from alchemdriver.composition.supercells import cells, nearest
from alchemdriver.errors import InputError
from alchemdriver.prepare.structure import read_structure
from alchemdriver.shelf import open_model

TIN = "Sn1 Sn 0 0 0 0.4"


def cif(folder, lead="0.6", more=TIN, iodine="1.0"):
    path = folder / "x.cif"
    path.write_text(CIF.format(lead=lead, more=more, iodine=iodine))
    return path


def command(*words):
    return main.app([str(w) for w in words], standalone_mode=False) or 0


def test_occupancies_are_weights_of_mixed_sites(tmp_path):
    mixture, weights, remarks = read_mixture(cif(tmp_path), (), (2, 1, 1))
    assert mixture.labels == (("Pb", "Sn"),)
    assert weights.tolist() == [0.6, 0.4]
    assert sorted(mixture.sublattices[0][1].items()) == [(1, "Sn"), (6, "Sn")]
    assert remarks == ("mixed sites of the file: Pb 0.6 Sn 0.4",)


def test_rounded_thirds_are_thirds(tmp_path):
    more = "Sn1 Sn 0 0 0 0.333\nGe1 Ge 0 0 0 0.333"
    _, weights, _ = read_mixture(cif(tmp_path, "0.333", more), ())
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-12)


def test_relax_takes_the_shares_of_the_file(tmp_path, capsys):
    """Springs of 2, 3 and 5 eV/Å² on displaced sites: E = Σ k(w) d²/2, k of lead and tin mixed."""
    path = cif(tmp_path)
    atoms = ase.io.read(path)
    springs = {"Cs": 2.0, "Pb": 3.0, "Sn": 5.0, "I": 2.0}
    content = {
        "backend": "harmonic",
        "spring_constants": springs,
        "anchors": (atoms.positions + np.array([0.1, 0.0, 0.0])).tolist(),
        "cell": atoms.cell.array.tolist(),
    }
    (tmp_path / "springs.json").write_text(json.dumps(content))
    words = ["--model", tmp_path / "springs.json", "--cell", "fixed", "--force", 10]
    assert command("relax", path, "--out", tmp_path / "out", *words) == 0
    found = ase.io.read(tmp_path / "out" / "relaxed.extxyz")
    expected = 0.5 * 0.1**2 * (4 * 2.0 + 0.6 * 3.0 + 0.4 * 5.0)
    assert found.info["energy_eV"] == pytest.approx(expected, rel=1e-9)
    assert "mixed sites of the file: Pb 0.6 Sn 0.4" in capsys.readouterr().err
    with pytest.raises(InputError, match="drop it"):
        command("relax", path, "--out", tmp_path / "both", "--alchemy", "Pb->Sn", *words)


def test_a_partly_empty_site_lies_between_full_and_empty(tmp_path):
    """A weight of the void state is a weight: at its ends the crystals with and without iodine."""
    mixture, weights, _ = read_mixture(cif(tmp_path, "1.0", "", "0.9"), ())
    assert mixture.labels == (("I", "void"),)
    np.testing.assert_allclose(weights, [0.9, 0.1], atol=1e-12)
    sites = mixture.sites
    atoms = mixture.atoms.copy()
    model = open_model("demo", evaluator="stock")
    calculator = AlchemicalCalculator(atoms, sites.states, [1, 0], model, groups=sites.groups)
    atoms.calc = calculator
    for chosen, w in ((0, [1.0, 0.0]), (1, [0.0, 1.0])):
        whole = mixture.pure([chosen])
        assert len(whole) == (5, 2)[chosen]
        whole.calc = AlchemicalCalculator(whole, [], [], model)
        calculator.set_weights(w)
        assert atoms.get_potential_energy() == pytest.approx(whole.get_potential_energy())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CIF.format(lead="1.0", more="", iodine="0.25").replace("I1 I 0.5 0 0", "I1 I 0.5 0.05 0"),
         r"split positions: sites .*0.25 I.* are 0\.445 Å"),
        (CIF.format(lead="0.6", more="Sn1 Sn 0 0 1 0.4", iodine="1.0"), "fall on one place"),
        (CIF.format(lead="0.5", more="Pb2 Pb 0 0 0 0.5", iodine="1.0"), "the same element"),
        (CIF.format(lead="0.8", more=TIN, iodine="1.0"), "sum to 1 at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_of_sites_is_refused(tmp_path, text, says):
    path = tmp_path / "x.cif"
    path.write_text(text)
    for read in (read_structure, lambda path: read_mixture(path, ())):
        with pytest.raises(InputError, match=says):
            read(path)


def test_duplicates_of_whole_atoms_are_one_atom(tmp_path):
    path = cif(tmp_path, "1.0", "Pb2 Pb 0 0 1 1.0")
    assert len(read_structure(path)) == 5


@pytest.mark.parametrize("method", ["random", "sqs"])
def test_cells_are_written_with_what_they_are(tmp_path, capsys, method):
    if method == "sqs":
        pytest.importorskip("sqsgenerator", reason="the optional package sqsgenerator is missing")
    words = ["--supercell", "2x2x2", "--method", method, "--samples", 2, "--seed", 5]
    path, out = cif(tmp_path), tmp_path / "cells"
    with pytest.raises(InputError, match="nearest: 5/8, 3/8"):
        command("supercells", path, out, *words)
    assert command("supercells", path, out, *words, "--nearest") == 0
    assert "Pb 5/8 Sn 3/8" in capsys.readouterr().out
    made = [ase.io.read(out / f"{method}-{n}.extxyz") for n in (1, 2)]
    for atoms in made:
        assert Counter(atoms.symbols) == {"Cs": 8, "Pb": 5, "Sn": 3, "I": 24}
        assert (atoms.info["method"], atoms.info["composition"]) == (method, "Pb 5/8 Sn 3/8")
    assert made[0].info["seed"] == 5
    assert method == "sqs" or (made[0].numbers != made[1].numbers).any()
    again = cells(*read_and_round(path), method, 2, 5)
    assert all((a.numbers == b.numbers).all() for a, b in zip(made, again, strict=True))
    assert read_structure(out / f"{method}-1.extxyz").remarks == ()
    with pytest.raises(InputError, match="not empty"):
        command("supercells", path, out, *words, "--nearest")


def read_and_round(path):
    mixture, weights, _ = read_mixture(path, (), (2, 2, 2))
    return mixture, nearest(mixture, weights).tolist()


def test_vacancies_are_atoms_left_out(tmp_path):
    """0.9 of 24 iodine sites is 22 of them; quasirandom cells of vacancies are not made."""
    path = cif(tmp_path, "1.0", "", "0.9")
    mixture, weights = read_and_round(path)
    (atoms, other) = cells(mixture, weights, "random", 2, 1)
    assert Counter(atoms.symbols) == {"Cs": 8, "Pb": 8, "I": 22}
    assert atoms.info["composition"] == "I 22/24 void 2/24"
    assert not np.allclose(atoms.positions, other.positions)
    for method in ("sqs", "orderings"):
        with pytest.raises(InputError, match="may be empty: take random cells"):
            cells(mixture, weights, method, 1, 1)


def test_a_mixture_that_is_spelt_out_makes_cells_too(tmp_path):
    (tmp_path / "whole.cif").write_text(CIF.format(lead="1.0", more="", iodine="1.0"))
    words = ["--alchemy", "Pb->Sn", "--supercell", "2x1x1", "--method", "orderings"]
    with pytest.raises(InputError, match="give --weights"):
        command("supercells", tmp_path / "whole.cif", tmp_path / "cells", *words)
    words += ["--weights", "0.5,0.5"]
    assert command("supercells", tmp_path / "whole.cif", tmp_path / "cells", *words) == 0
    atoms = ase.io.read(tmp_path / "cells" / "ordering-1.extxyz")
    assert (atoms.info["method"], atoms.info["degeneracy"]) == ("ordering", 2)
