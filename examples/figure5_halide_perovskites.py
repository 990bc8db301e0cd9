"""Figure 5: free energy of Pb→Sn in two phases of CsPbI3, and its difference between them.

    python examples/figure5_halide_perovskites.py --out runs/perovskites        # embedded model
    … --model mace-mp-0-small --perovskite alpha --supercell 6x6x6 --delta 6x3x3 \\
      --temperature 400 --pressure 1 --timestep 2 --equilibrate 20000 --switch 30000 \\
      --replicas 4 --device cuda                                                # the paper's

One command of alchemdriver: both phases, the difference closes the cycle of figure 5a. A second
call resumes. The embedded model does not hold the cubic α phase, so it gets the tilted γ; a phase
that transforms stops the run with a line that says so.
"""

from __future__ import annotations

import sys

from common import arguments
from free_energy import command
from structures import delta_caesium_lead_iodide, gamma_caesium_lead_iodide, perovskite

PEROVSKITES = {
    "gamma": gamma_caesium_lead_iodide,
    "alpha": lambda: perovskite("Cs", "Pb", "I", 6.2894),
}


def main() -> None:
    chosen = arguments(
        __doc__,
        default_model="demo",
        perovskite=("gamma", "first phase: gamma, or alpha as in the paper"),
        supercell=("2x1x1", "of the first phase"),
        delta=("1x2x1", "supercell of δ"),
        temperature=("100", "K, several in one string"),
        pressure=(10000.0, "bar"),
        timestep=(8.0, "fs; the paper: 2"),
        equilibrate=(250, "steps of a hold"),
        switch=(800, "steps of a switch"),
        cycles=(1, "forward and backward pairs per replica"),
        replicas=(3, "independent runs"),
        seed=(20404, "of the first replica"),
        device=("cpu", "cpu or cuda"),
    )
    if chosen.perovskite not in PEROVSKITES:
        sys.exit(f"perovskite: expected {' or '.join(PEROVSKITES)}, got {chosen.perovskite}")
    run = chosen.out / "workflow"
    if not run.exists():
        first, delta = chosen.out / f"{chosen.perovskite}.extxyz", chosen.out / "delta.extxyz"
        PEROVSKITES[chosen.perovskite]().write(first)
        delta_caesium_lead_iodide().write(delta)
        options = {
            "alchemy": "Pb->Sn",
            "second-phase": delta,
            "second-supercell": chosen.delta,
            "supercell": chosen.supercell,
        }
        names = ("model", "temperature", "pressure", "timestep", "equilibrate", "switch", "cycles")
        options |= {name: getattr(chosen, name) for name in (*names, "replicas", "seed")}
        flags = [word for k, v in options.items() for word in (f"--{k}", v)]
        command("prepare", "transmute", first, run, *flags)
    command("run", run, "--device", chosen.device)


if __name__ == "__main__":
    main()
