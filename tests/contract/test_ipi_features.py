"""The list of i-PI's features against i-PI's own input classes, and inputs that use the others."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver.contract.ipi_features import FEATURES, VALUE, check_features
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xmltree import parse_xml
from alchemdriver.errors import InputError

pytest.importorskip("ipi")
from ipi.inputs.simulation import InputSimulation
from ipi.utils.inputvalue import InputArray, InputValue, input_default


def of_ipi(cls) -> dict[str, tuple]:
    """Name as in our list → (class, keywords) of everything that i-PI reads in an element."""
    attributes = {f"@{name}": entry for name, entry in cls.attribs.items()}
    return {**attributes, **cls.fields, **cls.dynamic}


def tables(cls=InputSimulation, name="simulation", seen=None):
    """(table, i-PI's class) for every table that the list reaches from <simulation>."""
    seen = set() if seen is None else seen
    if (cls, name) in seen:
        return
    seen.add((cls, name))
    yield name, cls
    known = of_ipi(cls)
    for tag, rule in FEATURES[name].items():
        if rule.inside and tag in known:
            yield from tables(known[tag][0], rule.inside, seen)


WALK = [*tables()]


def default_of(keywords) -> str | None:
    """i-PI's default as it would be written; None if there is none that is a single value."""
    value = keywords.get("default")
    if value is None or isinstance(value, input_default):
        return None
    if isinstance(value, np.ndarray):
        return str(value.tolist())
    return str(value)


def test_every_table_is_reached():
    assert {name for name, _ in WALK} == {*FEATURES}


@pytest.mark.parametrize(("name", "cls"), WALK)
def test_the_list_has_all_that_ipi_reads(name, cls):
    rules, known = FEATURES[name], of_ipi(cls)
    if issubclass(cls, InputValue):
        known |= {f"@{n}": entry for n, entry in cls.attribs.items()}
    missing = known.keys() - rules.keys()
    assert not missing, f"<{name}>: i-PI also reads {sorted(missing)}; say what we make of it"
    # 'shape' and the like stand in every value; nothing else may be there that i-PI has not
    gone = rules.keys() - known.keys() - VALUE.keys()
    assert not (gone - {"thermostat", "motion"}), f"<{name}>: i-PI no longer reads {sorted(gone)}"


@pytest.mark.parametrize(("name", "cls"), WALK)
def test_modes_are_all_of_ipis_and_defaults_are_taken(name, cls):
    for tag, (_, keywords) in of_ipi(cls).items():
        rule, default = FEATURES[name][tag], default_of(keywords)
        options = keywords.get("options")
        if rule.modes and options:
            # a multi-motion has no multi-motion of its own in i-PI's list
            assert {*options} <= rule.modes.keys(), f"<{name} {tag}>: {options}"
        if default is None:
            continue
        if rule.modes and (name, tag) != ("file", "@mode"):  # 'chk', which is refused
            assert rule.modes[default] == "", f"<{name} {tag}>: i-PI's own {default}"
        if rule.only:
            check = f"<{tag.lstrip('@')}>{default}</{tag.lstrip('@')}>"
            assert taken(name, tag, default), f"{check} of <{name}> is what i-PI does unasked"


def taken(name: str, tag: str, text: str) -> bool:
    from alchemdriver.contract.ipi_features import _check_one

    try:
        _check_one(text, FEATURES[name][tag], tag, tag)
    except InputError:
        return False
    return True


def test_a_value_carries_what_ipi_lets_it_carry():
    assert {f"@{n}" for n in (*InputValue.attribs, *InputArray.attribs)} == VALUE.keys()


# --- inputs -------------------------------------------------------------------------------------

ROOT = "<simulation>"
SYSTEM = "<system>"
REFUSED = {
    "prefix of the system": (SYSTEM, '<system prefix="a">', "prefix"),
    "total time": (ROOT, f"{ROOT}<total_time>60</total_time>", "--wall-time"),
    "first step": (ROOT, f"{ROOT}<step>4</step>", "step 0"),
    "replica exchange": (ROOT, f"{ROOT}<smotion mode='remd'></smotion>", "smotion"),
    "template": (
        ROOT,
        f"{ROOT}<system_template><labels>[a]</labels></system_template>",
        "system_template.*replicas",
    ),
    "plumed": (ROOT, f"{ROOT}<ffplumed name='p'></ffplumed>", "ffplumed.*bias"),
    "offset": ("<address>", "<offset>1.0</offset><address>", "offset.*must be 0.0"),
    "active list": ("<address>", "<activelist>[0]</activelist><address>", "activelist"),
    "bias": ("<ensemble>", "<ensemble><bias><force forcefield='b'/></bias>", "bias"),
    "stress": ("<ensemble>", "<ensemble><stress>[1,0,0,0,1,0,0,0,1]</stress>", "flexible"),
    "ensemble": ('<dynamics mode="nvt">', '<dynamics mode="sc">', "sc.*Suzuki"),
    "misspelt": ('<dynamics mode="nvt">', '<dynamics mode="nvp">', "did you mean"),
    "no thermostat": (r"(?s)<thermostat.*?</thermostat>", "", "no temperature is kept"),
    "no barostat": ('<dynamics mode="nvt">', '<dynamics mode="npt">', "no pressure is kept"),
    "noisy forces": ('<thermostat mode="langevin">', '<thermostat mode="cl">', "'cl'"),
    "other centroid": (
        '<thermostat mode="langevin">',
        '<thermostat mode="langevin"><pile_centroid_t>9</pile_centroid_t>',
        "pile_centroid_t",
    ),
    "part of a cell": (
        "</thermostat>",
        "</thermostat><barostat><hfix>[xx]</hfix></barostat>",
        "hfix.*expected .offdiagonal.",
    ),
    "another motion": ('<motion mode="dynamics">', '<motion mode="t_ramp">', "temperature changes"),
    "open path": (
        SYSTEM,
        f"{SYSTEM}<normal_modes><open_paths>[0]</open_paths></normal_modes>",
        "open",
    ),
    "eco": (
        SYSTEM,
        f"{SYSTEM}<normal_modes><frequencies style='eco'>[1]</frequencies></normal_modes>",
        "eco",
    ),
    "cell beside": ("<velocities", "<cell>[1,0,0,0,1,0,0,0,1]</cell><velocities", "start.xyz"),
    "labels": ("<velocities", "<labels>[C]</labels><velocities", "labels"),
    "half of the force": (
        '<force forcefield="alchemy">',
        '<force forcefield="alchemy"><mts_weights>[0.5]</mts_weights>',
        "must sum to 1",
    ),
    "nothing moves": ('<motion mode="dynamics">', '<motion mode="dummy">', "nothing moves"),
    "a checkpoint beside": ("<velocities", "<file>RESTART.chk</file><velocities", "one <file"),
    "checkpoint": ('<file mode="xyz"', '<file mode="chk"', "chk"),
    "no mode, i.e. a checkpoint": ('<file mode="xyz" units="angstrom"', "<file", "mode='xyz'"),
    "weight": (
        '<force forcefield="alchemy">',
        '<force forcefield="alchemy" weight="0.5">',
        "weight",
    ),
    "no such element": ("<ensemble>", "<ensemble><temprature>3</temprature>", "did you mean"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = rr.oscillator_run(
        tmp_path_factory.mktemp("features") / "a", "nvt-fixed", lambda_=0.5, steps=20
    )
    text = path.read_text().replace('<simulation verbosity="low" floatformat="%24.16e">', ROOT)
    assert ROOT in text
    return path, text


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused_by_name(case, plain):
    path, text = plain
    old, new, says = REFUSED[case]
    edited, n = re.subn(old, lambda m: new, text, count=1)
    assert n == 1
    path.write_text(edited)
    with pytest.raises(InputError, match=f"(?s){says}") as caught:
        read_input(path)
    assert "\n" not in str(caught.value)


COLOURED = (
    "<thermostat mode='nm_gle'><A shape='(1,2,2)'>[1,0,0,1]</A>"
    "<C shape='(1,2,2)' units='kelvin'>[400,0,0,500]</C></thermostat>"
)


def test_coloured_noise_is_for_fixed_lambda(plain, tmp_path):
    path, text = plain
    path.write_text(re.sub(r"(?s)<thermostat.*?</thermostat>", COLOURED, text))
    assert "no single temperature" in read_input(path).noncanonical
    path.write_text(
        re.sub(r"(?s)<thermostat.*?</thermostat>", COLOURED.split("<C ")[0] + "</thermostat>", text)
    )
    assert read_input(path).noncanonical == ""  # without <C> every mode has the ensemble's
    switch = rr.oscillator_run(tmp_path / "b", equilibrate=5, switch=10, cycles=1)
    switch.write_text(re.sub(r"(?s)<thermostat.*?</thermostat>", COLOURED, switch.read_text()))
    with pytest.raises(InputError, match="give 'lambda'"):
        read_input(switch)


def test_other_forces_only_where_the_path_leaves_them_alone(plain, tmp_path):
    path, text = plain
    beside = text.replace("<system>", "<ffdirect name='f'><pes>harmonic</pes></ffdirect><system>")
    beside = beside.replace("<forces>", "<forces><force forcefield='f'/>")
    path.write_text(beside)
    read_input(path)
    path.write_text(text.replace('<force forcefield="alchemy">', '<force forcefield="other">'))
    with pytest.raises(InputError, match="expected one <force forcefield='alchemy'>"):
        read_input(path)
    path.write_text(re.sub(r"alchemy: [^,]*", "alchemy: model-&gt;scaled, scale: 0.5", beside))
    with pytest.raises(InputError, match="only one"):
        read_input(path)
    path.write_text(re.sub(r"alchemy: [^,]*", "alchemy: Cu[0]-&gt;void, tether: 4", beside))
    with pytest.raises(InputError, match="still hold what goes to void"):
        read_input(path)


def test_templates_use_what_is_understood(plain):
    from importlib import resources

    for file in resources.files("alchemdriver.ipi_inputs").iterdir():
        if file.name.endswith(".xml"):
            check_features(parse_xml(file.read_text(encoding="utf-8")))
