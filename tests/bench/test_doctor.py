"""The doctor tells right numbers from wrong ones."""

from __future__ import annotations

import mace  # noqa: F401  must come before e3nn
import pytest
import torch
from e3nn import o3
from mace.tools.cg import U_matrix_real

from alchemdriver.bench import doctor
from alchemdriver.bench.cases import perovskite
from alchemdriver.bench.timing import open_backend
from alchemdriver.errors import InputError, RunError
from alchemdriver.potential.backends.mace import MacePotential
from alchemdriver.potential.checks import difference


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


def test_what_converted_layers_of_demo_are_off_by_is_its_stored_coupling_coefficients():
    """With mace's own in float64 instead, cuEquivariance and stock modules agree to rounding."""
    pytest.importorskip("cuequivariance_torch")
    system = perovskite(2)
    s, backend = system.structure, open_backend("demo", "cpu", "float64")
    arguments = (s.positions, s.cell, s.pbc, system.weights)
    layers = MacePotential(backend, system.sites, model=backend.on_cueq).evaluate(*arguments)

    def off() -> float:
        return difference(backend.reference(system.sites).evaluate(*arguments), layers)

    assert 1e-10 < off() < doctor.CONVERTED
    for product in backend.model.products:
        contractions = product.symmetric_contractions
        irreps = o3.Irreps([(1, ir) for _, ir in o3.Irreps(str(contractions.irreps_in))])
        exact = U_matrix_real(irreps, o3.Irreps("0e"), correlation=2, dtype=torch.float64)[-1]
        contractions.contractions[0].U_matrix_2.copy_(exact)
    assert off() < 1e-13
