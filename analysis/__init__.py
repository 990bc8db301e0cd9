"""Free energies from i-PI output files; never imports torch or ipi.

files ──readers──▶ series ──work──▶ works ──estimators──▶ ΔF ──corrections──▶ totals
                                                └──▶ result.json, report, plots
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "Correction",
    "Result",
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
    "u_nk_frame",
    "workflow_summary",
    "write_page",
    "write_quantum",
    "write_workflow",
]

_HOME = {
    "Result": "result",
    "analyze": "run",
    "analyze_works": "estimators.switching",
    "leg_summary": "report.text",
    "mass_leg_in": "corrections.mass_leg",
    "read_gradients": "files.readers",
    "compare_beads": "compare.beads",
    "quantum_summary": "compare.beads",
    "save_plots": "report.plots",
    "save_quantum_plot": "compare.beads",
    "write_page": "report.page",
    "write_quantum": "compare.beads",
    "summary": "report.text",
    "switching_work": "estimators.work",
    "dhdl_frame": "report.export",
    "u_nk_frame": "report.export",
    "analyze_workflow": "compare.workflow",
    "workflow_summary": "compare.summary",
    "write_workflow": "compare.workflow",
}


def __getattr__(name: str) -> Any:
    # scipy.stats alone takes longer than the command line may need to start
    if name == "Correction":
        from ..paths.formulas import Correction

        return Correction
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
