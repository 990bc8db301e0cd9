"""``alchemdriver bench``: the tables of docs/evaluator.md on the machine at hand."""

from .run import FULL, PARTS, QUICK, Plan, run_bench

__all__ = ["FULL", "PARTS", "QUICK", "Plan", "run_bench"]
