"""The doctor tells right numbers from wrong ones."""

from __future__ import annotations

import pytest

from alchemdriver.bench import doctor
from alchemdriver.errors import InputError, RunError


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(doctor, "MODELS", ("demo",))
    monkeypatch.setattr(doctor, "BUDGET", 0.0)
    monkeypatch.setattr(doctor, "_memory", lambda device: iter(["memory"]))


def test_a_page_about_the_cpu(short):
    lines = list(doctor.examine("cpu"))
    assert any(line.split()[:2] == ["demo", "fast"] and line.endswith("right") for line in lines)
    assert any(line.startswith("not measured, out of time: demo, float32") for line in lines)
    assert not any("WRONG" in line for line in lines)
    assert len(lines) < 50
    assert max(map(len, lines)) <= 130


def test_numbers_of_float32_are_not_those_of_float64(short, monkeypatch):
    stock = doctor.open_backend
    monkeypatch.setattr(
        doctor, "open_backend", lambda m, device, dtype: stock(m, device, "float32")
    )
    lines = []
    with pytest.raises(RunError, match="checks failed on cpu"):
        lines.extend(doctor.examine("cpu"))


def test_a_device_that_is_not_there():
    with pytest.raises(InputError, match="device"):
        next(doctor.examine("cuda:99"))
