"""Figure S2: ΔG and dissipation of Pb→Sn in cubic CsPbI3, alchemical against linear mixing.

    python examples/figureS2_alchemical_against_linear.py --out runs/figureS2
    … --model mace-mp-0-small --cells 6 --switch 1000,10000,30000 --pressure 1 --temperature 400

Every point is a run folder that resumes.  Defaults are those of the demonstration: its model holds
the perovskite at 500 K and 1 GPa.
"""

from __future__ import annotations

import json

from common import arguments
from free_energy import numbers, switched
from structures import perovskite

from alchemdriver.composition import plots
from alchemdriver.prepare.render import Settings


def main() -> None:
    chosen = arguments(
        __doc__,
        default_model="demo",
        cells=(2, "n of the n×n×n cell"),
        switch=("350,700,1400", "steps of a switch, several"),
        equilibrate=(400, "steps of a hold"),
        temperature=(500.0, "K"),
        pressure=(10000.0, "bar"),
        timestep=(8.0, "fs"),
        cycles=(2, "forward and backward pairs per replica"),
        replicas=(2, "independent runs"),
        device=("cpu", "cpu or cuda"),
    )
    structure = chosen.out / "alpha.extxyz"
    perovskite("Cs", "Pb", "I", 6.2894).write(structure)
    settings = Settings(chosen.temperature, chosen.pressure, chosen.timestep, seed=20404)
    found: dict[str, dict[int, dict]] = {"alchemical": {}, "linear": {}}
    for interpolation, results in found.items():
        for steps in (int(n) for n in chosen.switch.split(",")):
            parameters = {
                "model": chosen.model,
                "alchemy": "Pb->Sn",
                "interpolation": interpolation,
                "equilibrate": str(chosen.equilibrate),
                "switch": str(steps),
                "cycles": str(chosen.cycles),
            }
            result = switched(
                *(chosen.out / f"{interpolation}-{steps}", "switch-npt", structure),
                *((chosen.cells,) * 3, parameters, settings, chosen.replicas, chosen.device),
            )
            results[steps] = numbers(result)
            print(interpolation, steps, results[steps], flush=True)
    (chosen.out / "figureS2.json").write_text(json.dumps(found, indent=1) + "\n")
    panels = [
        ("ΔG BAR, eV", "standard error of BAR, eV", "ΔG by BAR (eV)"),
        ("dissipated, kT", None, "dissipated (kT)"),
    ]
    plots.save_row(
        *(chosen.out / "figureS2.png", (7.0, 3.0)),
        [
            lambda ax, p=panel: plots.by_switching_time(ax, found, *p, time_step=chosen.timestep)
            for panel in panels
        ],
    )


if __name__ == "__main__":
    main()
