"""∂H/∂λ of fixed-λ runs in alchemlyb's dHdl format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import AnalysisError
from ...units import kT
from ..estimators.fixed_lambda import Window

if TYPE_CHECKING:
    import pandas as pd


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
