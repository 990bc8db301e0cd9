"""MACE re-associated for frozen weights: the same energies several times cheaper.

| file            | what                                                              |
|-----------------|-------------------------------------------------------------------|
| `support.py`    | for which models it is exact                                      |
| `frozen.py`     | the stock model as matrices and polynomials of the elements there |
| `layout.py`     | nodes, senders and receivers of a set of sites                    |
| `neighbours.py` | pairs, and padded rows of neighbours                              |
| `graph.py`      | which edges meet where, for given positions                       |
| `kernels.py`    | sum over neighbours, polynomial: value and gradient               |
| `network.py`    | the layers                                                        |
| `potential.py`  | energy, forces, virial, ∂E/∂λ                                     |

docs/evaluator.md derives it.
"""

from .potential import FastMacePotential
from .support import reason_against

__all__ = ["FastMacePotential", "reason_against"]
