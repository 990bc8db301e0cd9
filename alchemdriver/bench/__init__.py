"""``alchemdriver bench``: the tables of docs/evaluator.md on the machine at hand."""

from .run import PARTS, run_bench

__all__ = ["PARTS", "run_bench"]
