"""The evaluator on a CPU: compiled loops and matrix products, differentiated by hand.

| file | what |
|---|---|
| `tables.py` | radial weights as piecewise polynomials |
| `weights.py` | what is read off the frozen model |
| `repulsion.py` | pair repulsion |
| `loops.py`, `node_loops.py` | the compiled loops |
| `network.py` | forward and backward pass |
"""

from .network import CompiledNetwork
from .repulsion import PairRepulsion
from .weights import NotCompiled, read_weights

__all__ = ["CompiledNetwork", "NotCompiled", "PairRepulsion", "read_weights"]
