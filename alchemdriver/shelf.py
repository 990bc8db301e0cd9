"""Models by name, for users' own Python: where they are listed, identified and opened."""

from .contract.families import ModelCard
from .contract.shelf import catalogue, model_digest
from .potential.open import open_model

__all__ = ["ModelCard", "catalogue", "model_digest", "open_model"]
