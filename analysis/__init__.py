"""Free energies from i-PI output files; never imports torch or ipi.

files ──readers──▶ series ──work──▶ works ──estimators──▶ ΔF ──corrections──▶ totals
                                                └──▶ result.json, report, plots
"""

from __future__ import annotations

from importlib import import_module

__all__ = [
    "Result",
    "Term",
    "analyze",
    "analyze_workflow",
    "analyze_works",
    "compare_beads",
    "dhdl_frame",
    "leg_summary",
    "mass_leg_in",
    "quantum_summary",
    "read_gradients",
    "save_plots",
    "save_quantum_plot",
    "summary",
    "switching_work",
    "workflow_summary",
    "write_quantum",
    "write_workflow",
]

_HOME = {
    "Result": "result",
    "Term": "corrections",
    "analyze": "run",
    "analyze_works": "estimators",
    "leg_summary": "report",
    "mass_leg_in": "mass_leg",
    "read_gradients": "readers",
    "compare_beads": "quantum",
    "quantum_summary": "report",
    "save_plots": "plots",
    "save_quantum_plot": "plots",
    "write_quantum": "quantum",
    "summary": "report",
    "switching_work": "work",
    "dhdl_frame": "export",
    "analyze_workflow": "workflow",
    "workflow_summary": "workflow",
    "write_workflow": "workflow",
}


def __getattr__(name: str):
    # scipy.stats alone takes longer than the command line may need to start
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
