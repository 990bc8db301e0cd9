"""Readers: i-PI's formats, restarts, torn rows; what is broken is named by file and step."""

import gzip

import numpy as np
import pytest
from helpers.analysis_files import (
    HEADER,
    extras_block,
    lambdas,
    property_row,
    switching_input,
    write_input,
    write_outputs,
)

from alchemdriver import units
from alchemdriver.analysis.files import readers, rows
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError


def blocks(steps, scale=1.0):
    return "".join(extras_block(k, scale * k) for k in steps)


def test_property_file_columns_units_and_vectors(tmp_path):
    path = tmp_path / "run.out"
    path.write_text(
        "# column   1     --> step : The current simulation time step.\n"
        "# cols.    2-4   --> vcom{angstrom/femtosecond} : The COM velocity.\n"
        "# column   5     --> potential : The physical system potential energy.\n"
        "# column   6     --> conserved{electronvolt} : The conserved energy.\n"
        + property_row(0, 1, 2, 3, 4, 5)
        + property_row(1, 1, 2, 3, 4, 6)
    )
    series = readers.read_properties(path)
    assert series.columns["vcom"].shape == (2, 3)
    assert series.units == {
        "step": "",
        "vcom": "angstrom/femtosecond",
        "potential": "",
        "conserved": "electronvolt",
    }
    np.testing.assert_array_equal(series.energy("conserved"), [5, 6])
    np.testing.assert_allclose(series.energy("potential"), 4 / units.ELECTRONVOLT)
    with pytest.raises(AnalysisError, match="did you mean 'potential'"):
        series.column("potentia")


def test_resumed_branch_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "dHdlambda_0"
    # killed at 9, resumed from 5, now at 7: 8 and 9 belong to a branch that is no more
    path.write_text(blocks(range(10)) + blocks(range(6, 8), scale=10.0))
    series = readers.read_extras(tmp_path / "dHdlambda", "dHdlambda")
    np.testing.assert_array_equal(series.steps, np.arange(8))
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2, 3, 4, 5, 60, 70])


def test_torn_last_block_is_dropped(tmp_path):
    whole = blocks(range(5))
    path = tmp_path / "d_0"
    for cut in range(1, len(extras_block(4, 4.0))):
        path.write_text(whole[:-cut])
        series = readers.read_extras(tmp_path / "d", "dHdlambda")
        np.testing.assert_array_equal(series.steps, np.arange(4))


def test_torn_block_followed_by_a_resumed_run(tmp_path):
    whole = blocks(range(5))
    path = tmp_path / "d_0"
    for cut in range(1, len(extras_block(4, 4.0))):
        path.write_text(whole[:-cut] + blocks(range(3, 6), scale=2.0))
        series = readers.read_extras(tmp_path / "d", "dHdlambda")
        np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2, 6, 8, 10])


def test_torn_property_row_at_the_end_or_before_a_resumed_run(tmp_path):
    rows = [property_row(k, k, 100 + k) for k in range(5)]
    path = tmp_path / "run.out"
    for cut in range(1, len(rows[-1])):
        torn = HEADER + "".join(rows)[:-cut]
        path.write_text(torn)
        np.testing.assert_array_equal(readers.read_properties(path).steps, np.arange(4))
        path.write_text(torn + rows[3] + rows[4])
        series = readers.read_properties(path)
        np.testing.assert_array_equal(series.steps, np.arange(5))
        np.testing.assert_array_equal(series.columns["conserved"], 100.0 + np.arange(5))


def test_gap_names_file_and_step(tmp_path):
    (tmp_path / "d_0").write_text(blocks([0, 1, 2, 4]))
    with pytest.raises(AnalysisError, match=r"d_0: expected step 3, found step 4"):
        readers.read_extras(tmp_path / "d", "dHdlambda")
    (tmp_path / "run.out").write_text(HEADER + property_row(0, 0, 1) + property_row(2, 0, 1))
    with pytest.raises(AnalysisError, match=r"run.out: expected step 1, found step 2"):
        readers.read_properties(tmp_path / "run.out")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_is_not_finite_names_file_and_step(tmp_path, value):
    (tmp_path / "d_0").write_text(blocks([0, 1]) + extras_block(2, value))
    with pytest.raises(AnalysisError, match=r"d_0: step 2 .*not finite"):
        readers.read_extras(tmp_path / "d", "dHdlambda")
    (tmp_path / "run.out").write_text(HEADER + property_row(0, 0, 1) + property_row(1, 0, value))
    with pytest.raises(AnalysisError, match=r"run.out: step 1 .*not finite"):
        readers.read_properties(tmp_path / "run.out")


def test_a_broken_row_that_a_resumed_run_replaced_does_not_matter(tmp_path):
    (tmp_path / "d_0").write_text(blocks([0, 1]) + extras_block(2, float("nan")) + blocks([2, 3]))
    assert readers.read_extras(tmp_path / "d", "dHdlambda").steps[-1] == 3


def test_stride_is_checked(tmp_path):
    (tmp_path / "d_0").write_text(blocks([0, 5, 10]))
    assert len(readers.read_extras(tmp_path / "d", "dHdlambda", stride=5).steps) == 3
    with pytest.raises(AnalysisError, match="expected step 1"):
        readers.read_extras(tmp_path / "d", "dHdlambda", stride=1)


def test_words_and_other_keys_are_refused(tmp_path):
    (tmp_path / "d_0").write_text(" #EXTRAS(dHdlambda)# Step:  0 \nnothing\n")
    with pytest.raises(AnalysisError, match="expected a number at step 0, got 'nothing'"):
        readers.read_extras(tmp_path / "d", "dHdlambda")
    with pytest.raises(AnalysisError, match="holds extras 'dHdlambda', expected 'lambda'"):
        readers.read_extras(tmp_path / "d", "lambda")
    (tmp_path / "d_0").write_text("")
    with pytest.raises(AnalysisError, match="no complete row"):
        readers.read_extras(tmp_path / "d", "dHdlambda")
    with pytest.raises(AnalysisError, match="cannot be read"):
        readers.read_extras(tmp_path / "absent", "dHdlambda")


def test_property_file_without_header_or_step(tmp_path):
    path = tmp_path / "run.out"
    path.write_text(property_row(0, 1, 2))
    with pytest.raises(AnalysisError, match="no i-PI header"):
        readers.read_properties(path)
    path.write_text("# column   1     --> conserved : x\n" + property_row(1))
    with pytest.raises(AnalysisError, match="no 'step' column"):
        readers.read_properties(path)


def test_gzip_is_transparent_also_when_truncated(tmp_path):
    packed = gzip.compress(blocks(range(200)).encode())
    (tmp_path / "d_0.gz").write_bytes(packed)
    assert len(readers.read_extras(tmp_path / "d", "dHdlambda").steps) == 200
    (tmp_path / "d_0.gz").write_bytes(packed[:-40])
    assert 0 < len(readers.read_extras(tmp_path / "d", "dHdlambda").steps) < 200
    (tmp_path / "d_0.gz").write_bytes(packed[:100] + b"xxxxxxxxxxxx" + packed[112:])
    with pytest.raises(AnalysisError, match="damaged gzip"):
        readers.read_extras(tmp_path / "d", "dHdlambda")


@pytest.mark.parametrize(("beads", "names"), [(1, ["d_0"]), (4, ["d_0", "d_3"]), (12, ["d_00"])])
def test_bead_names_are_i_pi_s(tmp_path, beads, names):
    found = [p.name for p in readers.bead_paths(tmp_path / "d", beads)]
    assert len(found) == beads
    assert set(names) <= set(found)


def test_beads_are_averaged_and_cut_to_what_all_have(tmp_path):
    path = switching_input(tmp_path, 1, 2, 1, beads=10, masses="fixed")
    gradient = np.arange(7)[:, None] + np.arange(10)[None, :] * 100.0
    write_outputs(path, gradient)
    with open(tmp_path / "run.dHdlambda_07", "r+") as f:  # one bead's file is a row behind
        f.truncate(len(f.read()) - 30)
    series = readers.read_gradients(read_input(path))
    assert series.dHdlambda.shape == (6, 10)
    np.testing.assert_allclose(series.dHdlambda, gradient[:6], rtol=1e-15)
    np.testing.assert_allclose(series.mean, np.arange(6) + 450.0)


def test_row_of_step_k_belongs_to_lambda_of_k(tmp_path):
    path = switching_input(tmp_path, 3, 8, 1, lambda_file=True)
    lam = lambdas(path)
    write_outputs(path, np.ones(len(lam)), lam=lam)
    np.testing.assert_array_equal(readers.read_gradients(read_input(path)).lam, lam)
    write_outputs(path, np.ones(len(lam)), lam=np.roll(lam, 1))  # a step off
    with pytest.raises(AnalysisError, match=r"run.lambda: lambda is .* at step 4"):
        readers.read_gradients(read_input(path))
    write_outputs(path, np.ones(len(lam)), lam=lam + 1e-13)
    readers.read_gradients(read_input(path))


def test_input_without_gradient_says_what_to_add(tmp_path):
    path = write_input(tmp_path, "lambda: 0.5", 10)
    path.write_text(path.read_text().replace("extra_type='dHdlambda'", "extra_type='other'"))
    with pytest.raises(AnalysisError, match="add <trajectory"):
        readers.read_gradients(read_input(path))


# --- long files ---------------------------------------------------------------------------------


def test_numbers_are_read_to_the_bit():
    """As Python's float reads them: of all magnitudes, and near the middle of two doubles."""
    rng = np.random.default_rng(1)
    values = np.concatenate(
        [
            rng.normal(size=20000) * 10.0 ** rng.integers(-90, 90, 20000),
            rng.normal(size=50000) * 300.0,
            rng.random(20000),
            [0.0, -0.0, 1.0, 2.0, 1e16, 1e17, 1e22, 1e-6, 9.999999999999999e15, 2.0**-40],
            np.nextafter(2.0 ** np.arange(-20, 50), 0.0),
        ]
    )
    texts = [b"%24.16e" % v for v in values if len(b"%24.16e" % v) == 24]
    # seventeen digits that no double has, down to the middle between two of them
    for v in rng.random(5000) + 1.0:
        middle = (int(v * 2**52) + 0.5) / 2**52  # rounds; its digits are cut below
        texts += [b" " * 2 + b"%d.%016de+00" % (1, int((middle - 1.0) * 1e16) + k) for k in (0, 1)]
    table = np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(-1, 24)
    expected = np.array([float(t) for t in texts])
    found = rows.numbers(table)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("word", ["nan", "inf", "1.0e-100", "1.5", "1,5000000000000000e+00", "x"])
def test_what_is_not_so_written_is_left_to_float(word):
    whole = f"{1.5:24.16e}{word:>24}".encode()
    assert rows.numbers(np.frombuffer(whole, dtype=np.uint8).reshape(2, 24)) is None


@pytest.mark.parametrize("packed", [False, True])
def test_long_files_are_read_piece_by_piece(tmp_path, packed, monkeypatch):
    """Regular, torn, resumed with a header, irregular: the same rows whatever the pieces."""
    rng = np.random.default_rng(2)
    energies = rng.normal(size=3000)
    lines = [property_row(k, k, e) for k, e in enumerate(energies)]
    text = HEADER + "".join(lines[:2000]) + lines[2000][:30] + HEADER + "".join(lines[1500:2500])
    text += lines[2500].replace("   ", " ") + "".join(lines[2501:])  # narrower, by hand
    extras = blocks(range(2000), scale=0.1)[:-7] + blocks(range(1500, 3000), scale=0.1)

    def written(name: str, content: str) -> None:
        data = content.encode()
        if packed:  # in two members, as appended
            half = len(data) // 2
            data = gzip.compress(data[:half]) + gzip.compress(data[half:])
        (tmp_path / (f"{name}.gz" if packed else name)).write_bytes(data)

    written("run.out", text)
    written("d_0", extras)
    for size in (1 << 20, 5000, 700):
        monkeypatch.setattr(rows, "PIECE", size)
        series = readers.read_properties(tmp_path / "run.out")
        np.testing.assert_array_equal(series.steps, np.arange(3000))
        np.testing.assert_array_equal(series.columns["conserved"], energies)
        some = readers.read_properties(tmp_path / "run.out", names=("conserved",))
        assert list(some.columns) == ["conserved"]
        np.testing.assert_array_equal(some.columns["conserved"], energies)
        found = readers.read_extras(tmp_path / "d", "dHdlambda")
        np.testing.assert_array_equal(found.steps, np.arange(3000))
        np.testing.assert_array_equal(found.values[:, 0], 0.1 * np.arange(3000))


def test_a_hundred_thousand_rows_take_little_memory(tmp_path):
    """Ten times the rows of a table in memory, and no list of words: 4 MB of numbers, 20 in all."""
    import tracemalloc

    row = property_row(0, 1.0, 2.0)
    (tmp_path / "run.out").write_text(
        HEADER + "".join(property_row(k, 1.0, 2.0) for k in range(100_000))
    )
    tracemalloc.start()
    readers.read_properties(tmp_path / "run.out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(row) * 100_000 > 8e6
    assert peak < 20e6


@pytest.mark.parametrize("schedule", ["poly9", "linear"])
def test_lambda_along_a_run_is_that_of_every_step(tmp_path, schedule):
    run = read_input(switching_input(tmp_path / "r", 3, 17, 2, schedule=schedule))
    steps = np.arange(-1, run.total_steps + 5)
    expected = [run.lam_at(int(k)) for k in steps]
    np.testing.assert_array_equal(run.lam_along(steps), expected)
