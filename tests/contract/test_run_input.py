"""The contract: the dictionary, the XML around it, and the digest."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers import real_runs as rr
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemdriver.contract import run_input
from alchemdriver.contract.digest import fingerprint
from alchemdriver.contract.parameters import KEYS, check_parameters, split_parameters
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xmltree import parse_xml
from alchemdriver.errors import InputError

FIXED = {"model": "demo", "alchemy": "Pb->Sn", "lambda": "0.25"}
SWITCH = {
    "model": "demo",
    "alchemy": "Pb->Sn",
    "schedule": "poly9",
    "equilibrate": "5",
    "switch": "10",
}


@pytest.fixture(scope="module")
def switch(tmp_path_factory):
    return rr.oscillator_run(
        tmp_path_factory.mktemp("inputs") / "a", equilibrate=5, switch=10, cycles=2
    )


@pytest.fixture
def edited(switch, tmp_path):
    """edited((old, new)…): read_input of the switch with its XML changed."""
    shutil.copytree(switch.parent, tmp_path / "a")

    def read(*pairs):
        path = tmp_path / "a" / "input.xml"
        text = path.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        return read_input(path)

    return read


# --- the dictionary -----------------------------------------------------------------------------


def test_a_dictionary_is_split_as_ipi_splits_it():
    io_xml = pytest.importorskip("ipi.utils.io.inputs.io_xml")
    text = "{model: C:/x y.model, alchemy: Pb[0-3;7]->Sn Cs[5]->Rb,\n lambda: 0.5}"
    ours = split_parameters(text)
    assert {k: str(v) for k, v in io_xml.read_dict(text).items()} == ours
    assert ours["model"] == "C:/x y.model"


def test_fixed_lambda():
    p = check_parameters(FIXED)
    assert (p.lam, p.schedule, p.dtype, p.interpolation) == (0.25, None, "float64", "alchemical")
    assert (p.masses, p.digest, p.tether, p.cycles) == (None, None, None, None)


def test_switching():
    p = check_parameters(SWITCH)
    assert (p.lam, p.schedule, p.equilibrate, p.switch, p.cycles) == (0.0, "poly9", 5, 10, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lamda": "0.5"}, "did you mean 'lambda'"),
        ({"model": None}, "'model' is missing"),
        ({"alchemy": None}, "'alchemy' is missing"),
        ({"lambda": None}, "either 'lambda'"),
        ({"lambda": "-0.1"}, r"in \[0, 1\]"),
        ({"lambda": "nan"}, "finite"),
        ({"cycles": "2"}, "without a schedule"),
        ({"tether": "-1"}, "positive"),
        ({"tether": "inf"}, "finite"),
        ({"masses": "Fixed"}, "did you mean 'fixed'"),
        ({"interpolation": "alchemcal"}, "did you mean 'alchemical'"),
        ({"dtype": "float46"}, "did you mean 'float64'"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(changes, says):
    values = {k: v for k, v in {**FIXED, **changes}.items() if v is not None}
    with pytest.raises(InputError, match=says):
        check_parameters(values)


words = st.one_of(
    st.sampled_from(["poly9", "0.5", "-1", "nan", "1e400", "10", "9" * 5000, "fixed", "float64"]),
    st.text(max_size=12),
)
dictionaries = st.dictionaries(st.one_of(st.sampled_from([*KEYS]), st.text(max_size=8)), words)


@settings(deadline=None)
@given(dictionaries)
def test_any_dictionary_is_read_or_refused(values):
    with contextlib.suppress(InputError):
        p = check_parameters(values)
        assert 0.0 <= p.lam <= 1.0
        assert p.schedule is None or p.switch is not None
        assert p.tether is None or p.tether > 0


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(alphabet="{}:, abλ", max_size=30)))
def test_any_text_is_split_or_refused(text):
    with contextlib.suppress(InputError):
        for key, value in split_parameters(text).items():
            assert value
            assert key == key.strip()


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.integers(0, 99)))
def test_what_is_written_is_split_again(values):
    text = "{" + ", ".join(f"{k}: {v}" for k, v in values.items()) + "}"
    assert split_parameters(text) == {k: str(v) for k, v in values.items()}


# --- the XML ------------------------------------------------------------------------------------


def test_everything_in_one_record(switch):
    run = read_input(switch)
    assert (run.ensemble, run.temperature, run.timestep, run.beads) == ("nvt", 300.0, 2.0, 1)
    assert (run.total_steps, run.seed, run.prefix, run.pressure) == (60, 1, "run", None)
    assert run.schedule.total_steps == 60
    assert run.transformation.final == ("Au",) * 4
    assert (run.socket.mode, run.socket.address) == ("unix", "alchemdriver")
    assert run.output("out") == switch.parent / "run.out"
    assert {e.key: e.stride for e in run.extras} == {"dHdlambda": 1, "lambda": 1}
    assert "conserved{electronvolt}" in run.properties[0].columns
    assert read_input(switch.parent).path == switch


def test_masses_between_the_ends_are_weighted_means(switch):
    run = read_input(switch)
    assert run.interpolates_masses
    assert run.masses(0.0) == pytest.approx(63.546)
    assert run.masses(1.0) == pytest.approx(196.96657)
    assert run.masses(0.25) == pytest.approx(0.75 * 63.546 + 0.25 * 196.96657)


def test_beads_keep_masses_fixed_unless_asked(edited):
    run = edited(('nbeads="1"', 'nbeads="4"'), ("masses: interpolate, ", ""))
    assert not run.interpolates_masses


def test_removed_atoms_keep_their_mass(tmp_path):
    path = rr.oscillator_run(
        tmp_path / "a", alchemy="Cu[2]->void", tether=3, equilibrate=2, switch=3, cycles=1
    )
    run = read_input(path)
    assert run.transformation.final == ("Cu", "Cu", None, "Cu")
    assert np.array_equal(run.initial_masses, run.final_masses)
    assert run.parameters.tether == 3.0


def test_isotopes_come_from_a_file(tmp_path):
    masses = {"initial": [63, 65, 63, 65], "final": [197] * 4}
    (tmp_path / "m.json").write_text(json.dumps(masses))
    path = rr.oscillator_run(
        tmp_path / "a",
        masses_file=tmp_path / "m.json",
        equilibrate=2,
        switch=3,
        cycles=1,
    )
    assert read_input(path).masses(0.0).tolist() == [63, 65, 63, 65]


def test_units_of_an_input_do_not_matter(edited, switch):
    kelvin = 3.1668152e-06
    run = edited(
        ('<temperature units="kelvin">300.0<', f"<temperature>{300 * kelvin!r}<"),
        ('<timestep units="femtosecond">2.0<', '<timestep units="picosecond">0.002<'),
    )
    assert run.temperature == pytest.approx(300.0, rel=1e-12)
    assert run.timestep == pytest.approx(2.0, rel=1e-12)


def nodes(tree, at=()):
    """Paths of every element and attribute of a parsed XML."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*at, key)
            yield from nodes(value, (*at, key))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_damage_to_the_tree_is_read_or_refused(switch, data):
    """An element dropped, doubled, emptied or filled with nonsense: nothing but InputError."""
    tree = copy.deepcopy(parse_xml(switch.read_text()))
    for _ in range(data.draw(st.integers(1, 3))):
        everywhere = [n for n in nodes(tree) if n[-1] not in ("#comment", "#text")]
        *above, last = data.draw(st.sampled_from(everywhere))
        node = tree
        for key in above:
            node = node[key]
        kind = data.draw(st.sampled_from(["drop", "double", "empty", "word", "number", "nest"]))
        if kind == "drop":
            del node[last]
        elif last.startswith("@"):
            node[last] = data.draw(st.sampled_from(["", "-1", "nan", "x"]))
        else:
            old = node[last]
            node[last] = {
                "double": [old, old],
                "empty": None,
                "word": "nonsense",
                "number": "-1",
                "nest": {last: old},
            }[kind]
        if not isinstance(node, dict):
            break
    with contextlib.suppress(InputError):
        run_input.interpret(tree, switch)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_cut_or_scribbled_file_is_read_or_refused(switch, data):
    text = switch.read_text()
    cut = data.draw(st.integers(0, len(text)))
    rest = data.draw(st.integers(cut, min(len(text), cut + 40)))
    text = text[:cut] + data.draw(st.text(alphabet="<>/&x;'\" \0é", max_size=6)) + text[rest:]
    with contextlib.suppress(InputError):
        run_input.interpret(parse_xml(text), switch)


# --- the digest ---------------------------------------------------------------------------------


def test_the_digest_covers_what_both_sides_must_agree_on(edited, switch):
    run = read_input(switch)
    here = fingerprint(run, "model")
    assert here == fingerprint(read_input(switch), "model")
    p = run.parameters

    def other(**changes):
        return fingerprint(dataclasses.replace(run, **changes), "model") != here

    assert fingerprint(run, "other model") != here
    assert other(transformation=dataclasses.replace(run.transformation, final=("Ag",) * 4))
    assert other(transformation=dataclasses.replace(run.transformation, initial=("Ag",) * 4))
    assert other(initial_masses=run.initial_masses + 1e-9)
    assert other(final_masses=run.final_masses * 2)
    assert other(parameters=dataclasses.replace(p, tether=1.0))
    assert other(parameters=dataclasses.replace(p, interpolation="linear"))
    # what may differ between machines or change on the way
    assert not other(parameters=dataclasses.replace(p, dtype="float32", lam=0.5))
    assert not other(path=run.path.with_name("other.xml"), total_steps=1)


def test_a_digest_is_never_read_as_a_number(switch):
    assert read_input(switch).parameters.digest.startswith("sha256-")
