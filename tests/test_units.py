"""Our constants are i-PI's own numbers, not the same quantities from another CODATA release."""

from __future__ import annotations

import pytest

from alchemdriver import units
from alchemdriver.contract import xmltree

tables = pytest.importorskip("ipi.utils.units")


@pytest.mark.parametrize(
    ("ours", "family", "name"),
    [
        (units.ANGSTROM, "length", "angstrom"),
        (units.ELECTRONVOLT, "energy", "electronvolt"),
        (units.KELVIN, "temperature", "kelvin"),
        (units.FEMTOSECOND, "time", "femtosecond"),
        (units.DALTON, "mass", "dalton"),
        (units.BAR, "pressure", "bar"),
    ],
)
def test_constants_are_those_of_ipi(ours, family, name):
    assert ours == tables.unit_to_internal(family, name, 1.0)


@pytest.mark.parametrize(
    ("family", "ours"), [("temperature", "kelvin"), ("pressure", "bar"), ("time", "femtosecond")]
)
def test_units_of_an_input_are_read_as_ipi_reads_them(family, ours):
    assert tables.UnitPrefix == xmltree._PREFIXES
    for prefix in tables.UnitPrefix:
        for base in tables.UnitMap[family]:
            name = prefix + base
            try:
                there = tables.unit_to_internal(family, name, 1.0)
            except (TypeError, ValueError):
                continue
            expected = there / tables.unit_to_internal(family, ours, 1.0)
            factor = xmltree._unit(name, family)
            assert factor == pytest.approx(expected, rel=1e-12), name
    assert xmltree._unit("celsius", family) is None


@pytest.mark.parametrize(
    ("ours", "codata"),
    [
        (units.KB_EV, 8.617333262e-5),  # eV / K
        (units.HBAR_EV_FS, 0.6582119569),  # eV fs
        (units.DALTON_ANGSTROM2_PER_FS2_EV, 103.6426965),  # u Å²/fs² in eV
        (units.BAR_EV_PER_ANGSTROM3, 6.241509074e-7),  # i-PI's bar is 3e-5 off
    ],
)
def test_derived_constants_are_what_they_are_called(ours, codata):
    assert ours == pytest.approx(codata, rel=5e-5)
