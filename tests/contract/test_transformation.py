"""The alchemy grammar: what terms mean, and that only InputError ever escapes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemdriver.contract.transformation import parse_alchemy, parse_set
from alchemdriver.errors import InputError

CRYSTAL = ("Cs", "Pb", "I", "I", "I", "Pb", "Fe")


def finals(text):
    return parse_alchemy(text, CRYSTAL).final


def test_every_atom_of_an_element():
    assert finals("Pb->Sn") == ("Cs", "Sn", "I", "I", "I", "Sn", "Fe")


def test_indices_count_within_the_whole_structure_from_0():
    assert finals("Pb[5]->Sn") == ("Cs", "Pb", "I", "I", "I", "Sn", "Fe")
    assert finals("I[2-4]->Br") == ("Cs", "Pb", "Br", "Br", "Br", "Pb", "Fe")
    assert finals("I[2;4]->Br") == ("Cs", "Pb", "Br", "I", "Br", "Pb", "Fe")
    assert finals("Fe[0000000000000000000000006]->Co")[6] == "Co"


def test_terms_combine():
    t = parse_alchemy("Pb[1]->Sn Cs->Rb  Fe[6]->void", CRYSTAL)
    assert t.final == ("Rb", "Sn", "I", "I", "I", "Pb", None)
    assert t.initial == CRYSTAL
    assert t.changed == (0, 1, 6)
    assert t.voids == (6,)


def test_blanks_around_the_arrow_do_not_matter():
    assert finals("Pb -> Sn Cs ->Rb") == finals("Pb->Sn Cs->Rb")


def test_frenkel_ladd_changes_no_element():
    t = parse_alchemy("einstein -> model", CRYSTAL)
    assert t.word == "einstein->model"
    assert t.final == t.initial == CRYSTAL
    assert t.changed == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("Pb", "expected INITIAL->FINAL"),
        ("Pb->", "expected INITIAL->FINAL"),
        ("->Sn", "expected INITIAL->FINAL"),
        ("Pb->Sn->Ge", "expected INITIAL->FINAL"),
        ("Pb[->Sn", "expected INITIAL->FINAL"),
        ("Pb[]->Sn", "expected indices"),
        ("Pb[a]->Sn", "expected indices"),
        ("Pb[-1]->Sn", "expected indices"),
        ("Pb[5-1]->Sn", "out of range"),
        ("Pb[7]->Sn", "atoms 0 to 6"),
        ("Pb[1;1]->Sn", "named twice"),
        ("Pb[0]->Sn", "atom 0 is Cs, not Pb"),
        ("Pb->Sn Pb[1]->Ge", "changed by two terms"),
        ("Pb->Pb", "the same"),
        ("pb->Sn", "did you mean 'Pb'"),
        ("Pb->Snn", "did you mean 'Sn'"),
        ("Pb->X", "not an element"),
        ("Ge->Sn", "has no Ge"),
        ("Fe->void", "name the atoms"),
        ("void->Fe", "not an element"),
        ("einstein->model Pb->Sn", "cannot be combined"),
        ("Einstein->model", "not an element"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(text, says):
    with pytest.raises(InputError, match=says):
        parse_alchemy(text, CRYSTAL)


symbols = st.lists(st.sampled_from(["Cs", "Pb", "I"]), min_size=1, max_size=6).map(tuple)
scraps = st.lists(
    st.sampled_from(
        ["Pb", "Sn", "I", "void", "einstein", "model", "->", "[", "]", "-", ";", " ", "0", "1", "9"]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(st.one_of(scraps, st.text(max_size=40)), symbols)
def test_only_input_errors_escape(text, structure):
    with contextlib.suppress(InputError):
        t = parse_alchemy(text, structure)
        assert t.initial == structure
        assert len(t.final) == len(structure)
        assert t.word or t.changed


@settings(deadline=None)
@given(st.text(alphabet="0123456789-; ٣²", max_size=12), st.integers(1, 30))
def test_sets_hold_atoms_of_the_structure_once(text, natoms):
    with contextlib.suppress(InputError):
        found = parse_set(text, natoms, "here")
        assert len(set(found)) == len(found) > 0
        assert all(0 <= i < natoms for i in found)
