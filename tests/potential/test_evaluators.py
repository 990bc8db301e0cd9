"""Which evaluator of MACE is chosen, and how it is compared with stock modules at the start."""

import logging
import time

import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
from e3nn import o3
from helpers.mace_zoo import (
    CASES,
    COLLAPSED,
    EXPANDED,
    STATES,
    backend_of,
    make_model,
    salt,
)

from alchemdriver.errors import InputError, ModelError
from alchemdriver.potential import checks
from alchemdriver.potential.backends.fast_mace import (
    FastMacePotential,
    reason_against,
)
from alchemdriver.potential.backends.fast_mace.compiled import (
    CompiledNetwork,
)
from alchemdriver.potential.checks import check_evaluator, difference
from alchemdriver.potential.open import open_model
from alchemdriver.potential.sites import AlchemicalSites

# Sums in another order.
EXACT = 1e-12


@pytest.mark.parametrize("name", ["demo", "demo-fe"])
def test_embedded_models_are_evaluated_fast(name, caplog):
    caplog.set_level(logging.INFO)
    assert open_model(name).evaluator == "fast"
    assert "fast evaluator, exact for its blocks" in caplog.text
    assert open_model(name, evaluator="stock").evaluator == "stock"


def test_forced_evaluators():
    with pytest.raises(ModelError, match="cannot use the fast evaluator: it has a joint embedding"):
        backend_of("charge and spin", evaluator="fast")
    with pytest.raises(InputError, match=r"expected auto, fast, cueq, stock, got 'fas'.*'fast'"):
        backend_of(COLLAPSED, evaluator="fas")
    assert backend_of(COLLAPSED, evaluator="stock").evaluator == "stock"


# --- cuEquivariance -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [COLLAPSED, EXPANDED])
def test_converted_layers_equal_stock_modules(name):
    """Without a GPU cuEquivariance runs its layers in torch."""
    pytest.importorskip("cuequivariance_torch")
    backend = backend_of(name, evaluator="cueq")
    s = salt()
    states, weights = CASES["two groups, three states"]
    sites = AlchemicalSites.from_states(s.symbols, states)
    x = (s.positions, s.cell, s.pbc, np.array(weights))
    found, expected = (p.evaluate(*x) for p in (backend.potential(sites), backend.reference(sites)))
    layer = type(backend.potential(sites).model.interactions[0].conv_tp)
    assert layer.__module__.startswith("cuequivariance")
    assert difference(found, expected, weight_gradient=True) < EXACT
    assert check_evaluator(backend, sites, s) < EXACT


def test_the_faster_evaluator_is_kept(monkeypatch, caplog):
    pytest.importorskip("cuequivariance_torch")
    caplog.set_level(logging.INFO)
    backend = backend_of(COLLAPSED)
    s = salt()
    sites = AlchemicalSites.plain(s.symbols)
    x = (s.positions, s.cell, s.pbc, [])
    backend.keep_the_faster(sites, x)
    assert backend.evaluator == "fast"
    evaluate = FastMacePotential.evaluate

    def slowly(*arguments):
        time.sleep(2.0)
        return evaluate(*arguments)

    monkeypatch.setattr(FastMacePotential, "evaluate", slowly)
    backend.keep_the_faster(sites, x, rounds=1)
    assert backend.evaluator == "cueq"
    assert "cueq evaluator on this system (fast " in caplog.text


def test_without_cuequivariance(monkeypatch, caplog):
    from mace.modules import wrapper_ops

    monkeypatch.setattr(wrapper_ops, "CUET_AVAILABLE", False)
    with pytest.raises(ModelError, match=r"not installed: pip install 'alchemdriver\[gpu\]'"):
        backend_of(COLLAPSED, evaluator="cueq")
    caplog.set_level(logging.INFO)
    backend = backend_of(COLLAPSED)
    s = salt()
    backend.keep_the_faster(AlchemicalSites.plain(s.symbols), (s.positions, s.cell, s.pbc, []))
    assert backend.evaluator == "fast"
    assert "not installed" in caplog.text


def test_unusual_options_are_detected():
    assert "differ in multiplicity" in reason_against(
        make_model("Residual", "Residual", edge_irreps=o3.Irreps("4x0e+2x1o"))
    )
    lacking = make_model("Residual", "Residual", L=0, edge_irreps=o3.Irreps("4x0e+4x1o"))
    assert "degrees that its features lack" in reason_against(lacking)
    assert "correlation" in reason_against(
        make_model("Residual", "Residual", L=0, max_ell=1, correlation=4)
    )
    model = make_model("Residual", "Residual", L=0)
    model.interactions[0].linear.__class__ = type("CueqLinear", (o3.Linear,), {})
    assert "not e3nn's" in reason_against(model)


def test_start_up_check_agrees():
    s = salt()
    sites = AlchemicalSites.from_states(s.symbols, STATES)
    assert check_evaluator(backend_of(EXPANDED), sites, s) < EXACT
    assert check_evaluator(backend_of(EXPANDED, evaluator="stock"), sites, s) is None


def test_start_up_check_of_a_large_structure_takes_a_part(monkeypatch):
    s = salt()
    monkeypatch.setattr(checks, "_LARGEST_CHECK", 5)
    sites = AlchemicalSites.from_states(s.symbols, STATES)
    part, cut = checks._part(sites, s)
    assert (len(cut), part.n_atoms, any(cut.pbc)) == (5, 5, False)
    assert 0 < part.n_nodes < sites.n_nodes
    assert check_evaluator(backend_of(EXPANDED), sites, s) < EXACT


def test_wrong_evaluator_is_found_at_start_up(monkeypatch, caplog):
    monkeypatch.setattr(CompiledNetwork, "_repel", lambda *a: None)
    s = salt()
    sites = AlchemicalSites.from_states(s.symbols, STATES)
    backend = backend_of(EXPANDED)
    check_evaluator(backend, sites, s)
    assert backend.evaluator == "stock"
    assert "evaluated on stock modules: on this structure it differs" in caplog.text
    with pytest.raises(ModelError, match=r"the fast evaluator is off.*use evaluator stock"):
        check_evaluator(backend_of(EXPANDED, evaluator="fast"), sites, s)


def test_overlapping_atoms():
    fast = backend_of(COLLAPSED).potential(AlchemicalSites.plain(["Na", "Cl"]))
    with pytest.raises(ModelError, match="two atoms overlap"):
        fast.evaluate(np.zeros((2, 3)), np.eye(3) * 9, (True,) * 3, [])
