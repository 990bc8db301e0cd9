"""Figure 4 of the journal version: order and disorder in A2B'B''O6 perovskites.

    python examples/figure4_journal_order_disorder.py --out runs/order
    … --list my.csv --mixed 1,2 --sqs 4 --model mace-mp-0-medium

Resumes what is in --out.  The list beside this script has 12 compositions, the paper 100.
"""

from __future__ import annotations

from pathlib import Path

from common import arguments, open_model

from alchemdriver.composition.relaxation import Settings
from alchemdriver.composition.show import order_and_print


def main() -> None:
    chosen = arguments(
        __doc__,
        list=(Path(__file__).with_name("perovskites.csv"), "compositions and labels"),
        mixed=("1", "n of the n×n×n alchemical cells"),
        sqs=(0, "n of an n×n×n quasirandom cell, 0 for none"),
        seed=(1, "of quasirandom cells"),
        largest=(40, "leave out orderings with more atoms than this in their primitive cell"),
    )
    backend, digest = open_model(chosen.model)
    settings = Settings(optimiser="bfgs", force=5e-3, stress=5e-5)
    order_and_print(
        *(chosen.list, backend, digest, settings, chosen.mixed, chosen.sqs or None),
        *(chosen.seed, chosen.largest, chosen.out),
    )


if __name__ == "__main__":
    main()
