"""Alchemical free energies of machine-learning potentials, driven by i-PI."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["AlchemicalCalculator", "MaceCalculator", "__version__"]


def __getattr__(name: str) -> object:
    # The calculators need torch; the analysis and the command line must start without it.
    if name in ("AlchemicalCalculator", "MaceCalculator"):
        return getattr(import_module(".potential.calculator", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
