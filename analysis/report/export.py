"""Fixed-λ runs in alchemlyb's formats: ∂H/∂λ (dHdl) and energies at every λ (u_nk)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...contract.run_input import read_input
from ...errors import AnalysisError
from ...units import kT
from ..estimators import mbar
from ..estimators.fixed_lambda import Window
from ..estimators.reduced import samples, states

if TYPE_CHECKING:
    import pandas as pd

    from ..result import Result


def dhdl_frame(windows: Sequence[Window], *, decorrelate: bool = False) -> pd.DataFrame:
    """A pandas DataFrame as ``alchemlyb.estimators.TI`` wants it, in units of kT.

    Index levels ``time`` (ps) and ``lambda``, one column ``dHdl``, attrs temperature (K) and
    energy_unit.  Rows before equilibration are left out; *decorrelate* keeps only every g-th row, g
    the statistical inefficiency, so that TI's own error bars are right.  Raises AnalysisError for
    different temperatures.
    """
    import pandas as pd

    temperatures = {w.temperature for w in windows}
    if len(temperatures) != 1:
        raise AnalysisError(f"expected windows at one temperature, got {sorted(temperatures)} K")
    temperature = temperatures.pop()
    frames = []
    for w in sorted(windows, key=lambda w: w.lam):
        step = int(np.ceil(w.inefficiency)) if decorrelate else 1
        rows = slice(w.equilibration, None, step)
        index = pd.MultiIndex.from_arrays(
            [w.time[rows], np.full(len(w.time[rows]), w.lam)], names=["time", "lambda"]
        )
        frames.append(pd.DataFrame({"dHdl": w.gradient[rows] / kT(temperature)}, index=index))
    table = pd.concat(frames)
    table.attrs = {"temperature": temperature, "energy_unit": "kT"}
    return table


def u_nk_frame(result: Result) -> pd.DataFrame:
    """A pandas DataFrame as ``alchemlyb.estimators.MBAR`` and ``BAR`` want it, in units of kT.

    (H(x, λ') + P V)/kT of the independent configurations of every window of *result* (rows: index
    levels ``time``, ps, and ``lambda``) at every λ that was run and both ends (columns), up to a
    constant of each row where H is linear in λ; attrs temperature (K) and energy_unit.

    The inputs must still lie where they were analysed.  Raises AnalysisError where they do not,
    and NotEvaluated where energies at other λ are missing: ``alchemdriver analyze`` computes them.
    """
    if not result.windows:
        raise AnalysisError(f"u_nk is of runs at fixed lambda, this result is of {result.kind}")
    if not all(len(w.gradient) for w in result.windows):
        raise AnalysisError(
            "u_nk needs the time series: a result read from a file has none, analyse the runs again"
        )
    runs = [read_input(Path(p.folder) / p.input) for p in result.sources]
    lams = states([w.lam for w in result.windows])
    parts = [samples(run, w, lams) for run, w in zip(runs, result.windows, strict=True)]
    return mbar.u_nk_frame(parts, lams, result.windows[0].temperature)
