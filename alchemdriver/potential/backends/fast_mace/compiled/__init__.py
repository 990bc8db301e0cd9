"""The evaluator on a CPU: compiled loops and matrix products, differentiated by hand.

| file | what |
|---|---|
| `tables.py` | radial weights as piecewise polynomials |
| `weights.py` | what is read off the frozen model |
| `repulsion.py` | pair repulsion |
| `loops.py`, `node_loops.py` | the compiled loops, over edges and over nodes |
| `layer.py` | forward and backward pass of a layer |
| `network.py` | of the whole, with the geometry |
| `scratch.py` | arrays of edges, kept between evaluations |
"""

from .network import CompiledNetwork
from .repulsion import PairRepulsion
from .weights import NotCompiled, Weights, read_weights

__all__ = ["CompiledNetwork", "NotCompiled", "PairRepulsion", "Weights", "read_weights"]
