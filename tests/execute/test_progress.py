"""Progress from i-PI's property file, also where a kill has torn it."""

import pytest
from helpers.analysis_files import HEADER, property_row, switching_input

from alchemdriver.contract.run_input import read_input
from alchemdriver.execute.progress import last_row, read_progress

VECTOR = """# column   1     --> step : The current simulation time step.
# column   2     --> temperature{kelvin} : The temperature.
# cols.    3-5   --> vcom : The velocity of the centre of mass.
"""


def test_last_complete_row(tmp_path):
    run = read_input(switching_input(tmp_path, 2, 5, 1))
    assert read_progress(run) is None
    path = tmp_path / "run.out"
    path.write_text(HEADER)
    assert read_progress(run) is None
    path.write_text(HEADER + property_row(3, 3, 0.1) + property_row(4, 4, 0.2)[:-1])
    progress = read_progress(run)
    assert (progress.step, progress.total, progress.segment) == (3, 14, "forward")


@pytest.mark.parametrize("header", [HEADER, VECTOR], ids=["plain", "vector last"])
def test_torn_row_before_a_resumed_one(tmp_path, header):
    path = tmp_path / "run.out"
    rows = [property_row(k, 300 + k, *([0.5] * (1 if header == HEADER else 3))) for k in range(9)]
    for cut in range(1, len(rows[8])):
        path.write_text(header + "".join(rows)[:-cut] + rows[6])
        found = last_row(path)
        assert float(found["step"]) == 6.0
        if header == VECTOR:
            assert float(found["temperature"]) == 306.0


def test_short_row_is_no_row(tmp_path):
    (tmp_path / "run.out").write_text(VECTOR + property_row(1, 300, 0.5, 0.5))
    assert last_row(tmp_path / "run.out") is None


@pytest.mark.parametrize("step", ["1.0-2", "nan", "inf", "\0\0"])
def test_bad_number_is_not_fatal_to_the_supervisor(tmp_path, step):
    run = read_input(switching_input(tmp_path, 2, 5, 1))
    (tmp_path / "run.out").write_text(HEADER + f"  {step}  1.0  2.0\n")
    assert read_progress(run) is None
