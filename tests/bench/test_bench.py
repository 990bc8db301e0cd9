"""The benchmark measures what it says.  No time is judged."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from alchemdriver.bench import QUICK, Plan, memory, profile, run_bench, step, table
from alchemdriver.bench.cases import SYSTEMS
from alchemdriver.bench.peers import peers
from alchemdriver.bench.timing import calculator_step, interleaved, open_backend, spread
from alchemdriver.errors import InputError, ModelError
from alchemdriver.potential.backends.fast_mace.compiled import loops
from alchemdriver.potential.checks import difference
from alchemdriver.potential.sites import AlchemicalSites

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_variants_take_turns_to_be_first_and_the_first_round_is_left_out():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = interleaved(functions, 3)
    assert "".join(calls) == "abcbcacababc"
    assert [len(t) for t in times.values()] == [3, 3, 3]


def test_a_ratio_is_the_median_of_the_ratios_of_each_round():
    """A round that was slow for both does not move it; the ratio of medians would."""
    assert spread([2.0, 20.0, 6.0], [1.0, 10.0, 2.0])["median"] == 2.0


def test_quick_table_agrees_with_stock_modules_at_moved_atoms(tmp_path):
    out = tmp_path / "speed.json"
    run_bench(QUICK, "cpu", out)
    (row,) = json.loads(out.read_text())["table"]["rows"]
    assert row["evaluator"] == "fast"
    assert row["relative error"]["expanded"] < 1e-12
    assert row["relative error"]["stock"] < 1e-12
    assert {"plain", "stock", "expanded", "linear", "linear, stock"} <= set(row["over alchemical"])
    assert row["ends"] == 2
    tables = runpy.run_path(str(BENCHMARKS / "speed.py"))["tables"]
    written = tables(json.loads(out.read_text())).splitlines()
    assert "| **demo** |" in written[4]
    assert f"| perovskite-40 (2) | {row['ms']['alchemical']['median']:.3g} |" in written[5]


def test_every_variant_of_a_round_has_the_same_atoms_and_no_round_those_of_another():
    """A list of neighbours that is kept, or a skin, must not serve twice."""
    frames = SYSTEMS["perovskite-40"]().frames(3)
    assert len({x.tobytes() for x in frames}) == 3
    seen = {"a": [], "b": []}
    variants = {name: table._at_each(to.append, frames) for name, to in seen.items()}
    interleaved(variants, 2)
    assert all(np.array_equal(seen[name], frames) for name in seen)


@pytest.mark.parametrize(
    ("name", "ends"),
    [("alloy-32", 5), ("alloy-32-two", 2), ("metal-108-five", 5), ("vacancy-250", 2)],
)
def test_linear_mixing_needs_as_many_ends_as_states_have_weight(name, ends):
    """At weights of one state the mixture is that end."""
    system = SYSTEMS[name]()
    assert len(system.ends()) == ends == np.count_nonzero(system.weights)
    assert all(end.n_weights == 0 for end in system.ends())
    assert system.ends()[-1].symbols == system.sites.endpoint([ends - 1])


@pytest.mark.parametrize(
    ("package", "name"), [("symmetrix", "symmetrix-xl"), ("fastatomstruct", "fastatomstruct")]
)
def test_a_peer_computes_the_same_model(package, name):
    """Radial functions may be splines; all forces are below 1e-3 eV/Å here."""
    pytest.importorskip(package)  # symmetrix-xl needs a C++ compiler as well
    backend = open_backend("small", "cpu", "float64")
    s = SYSTEMS["perovskite-40"]().structure
    calculator = peers(backend, s.symbols)[name]
    calculator_step(calculator, s)(s.positions)
    expected = backend.potential(AlchemicalSites.plain(s.symbols))
    expected = expected.evaluate(s.positions, s.cell, s.pbc, np.zeros(0))
    assert difference(table._evaluation(calculator.results, s.cell), expected) < 1e-4


def test_profile_counts_the_compiled_loops():
    """One pair of atoms, one path per degree 0 to 3: 2 edges of 4 + 2·16 operations a channel."""
    weights, coupled, senders = np.ones((1, 4 * 8)), np.ones((1, 16)), np.ones((2, 8))
    edge, starts = np.array([0, 1]), np.array([0, 1, 2])
    paths = np.array([[n, 0, 1, 2 * n + 1, n * n, 1, 2 * n * n, 1] for n in range(4)])
    out = np.zeros((32, 8))
    arrays = (weights, coupled, senders, paths, out)
    row = np.zeros(2, int)  # of the pair, read in both directions
    with profile._Count() as count, profile._loops_counted(count):
        loops.sum_messages(0, 2, starts, edge, row, row, edge, *arrays)
    assert count.flops == 2 * 8 * (4 + 2 * 16)
    assert count.moved > sum(a.nbytes for a in arrays)
    assert (out == 1.0).all()


def test_what_cannot_be_measured_is_said_first():
    with pytest.raises(InputError, match="did you mean 'table'"):
        run_bench(Plan(["tabel"], ["demo"], [], ["float64"], 2), "cpu", None)
    with pytest.raises(ModelError, match="Co"):  # demo knows no element of the alloy
        run_bench(Plan(["table"], ["demo"], ["alloy-32"], ["float64"], 2), "cpu", None)


def test_a_whole_step_contains_its_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "STEPS", 12)
    monkeypatch.setattr(step, "WARM_UP", 2)
    monkeypatch.setattr(step, "REPEAT", 1)
    for mode in ("unix", "shm"):
        (tmp_path / mode).mkdir()
        whole, bare = step._measure(tmp_path / mode, "demo", "float64", mode, "cpu")
        assert len(whole) == len(bare) == 10
        assert (whole > bare).all()
        assert (np.array(bare) > 0).all()


@pytest.mark.skipif(not memory.Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_sees_an_array_that_is_gone_again():
    before = memory._start_counting("cpu")
    array = np.ones(4_000_000)  # 32 MB
    del array
    assert memory._peak("cpu") - before == pytest.approx(32e6, rel=0.2)
