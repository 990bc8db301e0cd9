"""Figure 4: free energy of a vacancy in bcc iron, by the alchemical path and by Frenkel-Ladd.

    python examples/figure4_vacancy.py --out runs/vacancy                 # embedded model, hours
    … --model mace-mp-0-small --cells 5 --temperatures '100 200 300' --device cuda     # the paper's

One command of alchemdriver: crystal and defect by Frenkel-Ladd, the atom switched into a spring,
eqs. 12, 18-21; tables and figures are its own. A second call resumes.
"""

from __future__ import annotations

from common import arguments
from free_energy import command
from structures import iron


def main() -> None:
    chosen = arguments(
        __doc__,
        default_model="demo-fe",
        cells=(3, "n of the n×n×n cubic cells"),
        temperatures=("100", "K, several in one string"),
        equilibrate=(2000, "steps of a hold; the paper: 20000"),
        switch=(3000, "steps of a switch; the paper: 30000"),
        cycles=(2, "forward and backward pairs per replica"),
        replicas=(2, "independent runs; the paper: 4"),
        seed=(20404, "of the first replica"),
        device=("cpu", "cpu or cuda"),
    )
    run = chosen.out / "workflow"
    if not run.exists():
        structure = chosen.out / "iron.extxyz"
        iron().write(structure)
        options = {
            "model": chosen.model,
            "supercell": "x".join([str(chosen.cells)] * 3),
            "temperature": chosen.temperatures,
            "pressure": 1.01325,
            "timestep": 2,
            "equilibrate": chosen.equilibrate,
            "switch": chosen.switch,
            "cycles": chosen.cycles,
            "replicas": chosen.replicas,
            "seed": chosen.seed,
            "site": 0,
        }
        flags = [word for k, v in options.items() for word in (f"--{k}", v)]
        command("prepare", "vacancy", structure, run, *flags)
    command("run", run, "--device", chosen.device)


if __name__ == "__main__":
    main()
