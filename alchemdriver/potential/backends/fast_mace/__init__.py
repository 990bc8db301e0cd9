"""MACE re-associated for frozen weights: the same energies several times cheaper.

| file            | what                                                              |
|-----------------|-------------------------------------------------------------------|
| `support.py`    | for which models it is exact                                      |
| `frozen.py`     | the stock model as matrices and polynomials of the elements there |
| `layout.py`     | nodes, senders and receivers of a set of sites                    |
| `neighbours.py` | pairs, and the directed edges of a sum                            |
| `graph.py`      | which edges meet where, for given positions                       |
| `network.py`    | the layers                                                        |
| `compiled/`     | the evaluator on a CPU, differentiated by hand                    |
| `cpu_kernels.py`, `loops.py` | sum over neighbours, polynomial: where torch differentiates |
| `torch_kernels.py` | the same for accelerators                                      |
| `potential.py`  | energy, forces, virial, ∂E/∂λ                                     |

docs/evaluator.md derives it.
"""

from .potential import FastMacePotential
from .support import reason_against

__all__ = ["FastMacePotential", "reason_against"]
