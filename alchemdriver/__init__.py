"""Alchemical free energies of machine-learning potentials, driven by i-PI."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["AlchemicalCalculator", "__version__"]


def __getattr__(name: str) -> object:
    # The calculator needs torch; the analysis and the command line must start without it.
    if name == "AlchemicalCalculator":
        return import_module(".potential.calculator", __name__).AlchemicalCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
