"""Records from JSON and back, and the one line that a wrong file gives."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from alchemdriver.analysis import analyze
from alchemdriver.analysis.compare.beads import QUANTUM, BeadPoint, QuantumResult
from alchemdriver.analysis.result import RESULT, read_result
from alchemdriver.contract.files import write_json
from alchemdriver.contract.relaxation import Relaxation, read_settings
from alchemdriver.contract.stored import (
    Called,
    Count,
    Format,
    IfKnown,
    InMemory,
    OneOf,
    Shape,
    check,
    dump,
    no_rows,
)
from alchemdriver.errors import InputError, RunError

DATA = Path(__file__).parents[1] / "data" / "analysis"


@dataclass(frozen=True)
class Inner:
    count: Count
    origin: Annotated[str, Called("from")] = "here"


@dataclass(frozen=True)
class Outer:
    kind: Literal["one", "two"]
    word: Annotated[str, OneOf(("red", "green"))]
    x: float
    pair: tuple[float, int] | None
    inner: tuple[Inner, ...]
    table: dict[str, Inner]
    rows: Annotated[np.ndarray, Shape("n 3")]
    weights: Annotated[np.ndarray, Shape("n")] | None
    place: Path
    series: Annotated[np.ndarray, InMemory(no_rows)]
    note: Annotated[str | None, IfKnown()] = None
    flags: dict[str, bool] = field(default_factory=dict)


GOOD = {
    "kind": "one",
    "word": "red",
    "x": 1,
    "pair": [0.1, 2],
    "inner": [{"count": 3, "from": "there"}, {"count": 1}],
    "table": {"β": {"count": 2}},
    "rows": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    "weights": [0.5, 0.5],
    "place": "a/b",
    "flags": {"on": True},
}
BY_HAND = Format("test/1", Outer, remedy="mend it", by_hand=True)
OURS = Format("test/1", Outer, remedy="make it again", error=RunError, unsigned=True)


def write(path, change=None):
    document = json.loads(json.dumps({"schema": "test/1", **GOOD}))
    if change is not None:
        change(document)
    write_json(path, document)
    return path


def test_a_record_is_read_and_written_again(tmp_path):
    found = BY_HAND.read(write(tmp_path / "a.json"))
    assert found.pair == (0.1, 2)
    assert type(found.x) is float
    assert found.inner == (Inner(3, "there"), Inner(1))
    assert found.table["β"].count == 2
    assert found.rows.shape == (2, 3)
    assert found.place == Path("a/b")
    assert found.series.shape == (0,)
    BY_HAND.write(tmp_path / "b.json", found)
    again = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    inner = [{"count": 3, "from": "there"}, {"count": 1, "from": "here"}]
    table = {"β": {"count": 2, "from": "here"}}
    assert again == {"schema": "test/1", **GOOD, "inner": inner, "table": table}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "tow"}, 'kind: expected "one" or "two", got "tow" (did you mean \'two\'?)'),
        ({"word": "gren"}, 'word: expected "red" or "green", got "gren" (did you mean'),
        ({"x": "1"}, 'x: expected a finite number, got "1"'),
        ({"x": True}, "x: expected a finite number, got true"),
        ({"x": 1e70}, "x: expected a finite number, got 1e+70"),
        ({"pair": [1.0]}, "pair: expected a list of 2, got a list of 1"),
        ({"pair": [1.0, 2.5]}, "pair[1]: expected a whole number, got 2.5"),
        ({"inner": [{"count": 1}, {"count": 0}]}, "inner[1].count: expected a whole number of at"),
        ({"inner": [{"fro": "x"}]}, "inner[0].fro: unknown key (did you mean 'from'?)"),
        ({"table": {"β": {}}}, "table.β.count: expected a whole number of at least 1, but the key"),
        ({"table": []}, "table: expected an object, got a list of 0"),
        ({"rows": [[1, 2, 3], [4, 5]]}, "rows[1]: expected as many numbers as in the rows before"),
        ({"rows": [[1, 2, 3], ["x", 5, 6]]}, 'rows[1][0]: expected a finite number, got "x"'),
        ({"rows": [[1, 2], [3, 4]]}, "rows: expected 3 numbers"),
        ({"rows": [1, 2]}, "rows: expected 2-dimensional lists of numbers, got 1"),
        ({"weights": [1.0]}, "weights: expected 2 numbers as in rows, got 1"),
        ({"place": "a\0b"}, "place: expected text"),
        ({"flags": {"on": 1}}, "flags.on: expected true or false, got 1"),
        ({"a\nb": 1}, '"a\\nb": unknown key'),
        ({"schema": "test/2"}, 'expected schema test/1, got "test/2"'),
        ({"schema": None}, "expected schema test/1, got none"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, change, says):
    path = write(tmp_path / "a.json", lambda d: d.update(change))
    with pytest.raises(InputError) as caught:
        BY_HAND.read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: {says}"), line
    assert line.endswith(": mend it") or "schema" in line
    assert line.isprintable()


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(InputError, match="x: expected a finite number, but the key is missing"):
        BY_HAND.read(write(tmp_path / "a.json", lambda d: d.pop("x")))


def test_files_of_ours_may_hold_more_and_may_be_older_than_schemas(tmp_path):
    path = write(tmp_path / "a.json", lambda d: (d.update(later=1), d.pop("schema")))
    assert OURS.read(path).x == 1.0
    with pytest.raises(RunError, match="got a list of 1: make it again"):
        OURS.read(write(tmp_path / "b.json", lambda d: d.update(x=[1])))
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(RunError, match="expected an object"):
        OURS.read(tmp_path / "c.json")
    with pytest.raises(RunError, match="cannot be read"):
        OURS.read(tmp_path / "absent.json")


def test_records_made_in_code_can_be_checked_too():
    check(Inner(1))
    check(Inner(np.int64(1)))
    with pytest.raises(InputError, match="count: expected a whole number of at least 1, got 0"):
        check(Inner(0))


def test_numpys_numbers_are_written_as_plain_ones():
    assert json.dumps(dump({"a": np.float64(0.1), "b": np.arange(2), 3: (np.int64(1),)})) == (
        '{"a": 0.1, "b": [0, 1], "3": [1]}'
    )


@pytest.mark.parametrize("name", ["switch", "fixed_beads"])
def test_a_result_is_read_as_it_was_written(tmp_path, name):
    """Every digit and every key, of outputs that i-PI wrote."""
    result = analyze(DATA / name / "input.xml", out=tmp_path)
    path = tmp_path / "result.json"
    read = read_result(path)
    before = json.loads(path.read_text(encoding="utf-8"))
    RESULT.write(path, read, {"units": before["units"]})
    assert json.loads(path.read_text(encoding="utf-8")) == before
    assert read.conditions == result.conditions
    assert read.totals == result.totals
    assert read.windows == () or read.windows[0].mean == result.windows[0].mean


def test_beads_and_relaxations_are_read_as_they_were_written(tmp_path):
    point = BeadPoint(8, 0.1, 0.01, 0.2, None, 0.3, 0.01)
    quantum = QuantumResult("BAR", (point,), None, None, None, None, None, None, None)
    QUANTUM.write(tmp_path / "quantum.json", quantum, {"units": "eV"})
    assert QUANTUM.read(tmp_path / "quantum.json") == quantum
    path = tmp_path / "relax.json"
    relaxation = Relaxation("../model/a.json", 1.0, most_steps=5)
    relaxation.write(path)
    assert read_settings(path) == relaxation
    # as they were before there was a schema in them
    path.write_text('{"model": "demo", "pressure_bar": 1}')
    assert read_settings(path) == Relaxation("demo", 1.0)
    path.write_text('{"model": "demo", "presure_bar": 1}')
    with pytest.raises(InputError, match="did you mean 'pressure_bar'"):
        read_settings(path)
