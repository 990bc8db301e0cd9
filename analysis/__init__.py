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
    "analyze_works",
    "dhdl_frame",
    "read_gradients",
    "save_plots",
    "summary",
    "switching_work",
]

_HOME = {
    "Result": "result",
    "Term": "corrections",
    "analyze": "run",
    "analyze_works": "estimators",
    "read_gradients": "readers",
    "save_plots": "plots",
    "summary": "report",
    "switching_work": "work",
    "dhdl_frame": "export",
}


def __getattr__(name: str):
    # scipy.stats alone takes longer than the command line may need to start
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
