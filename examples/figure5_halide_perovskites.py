"""Figure 5: free energy of Pb→Sn in α- and δ-CsPbI3, and its difference between the phases.

    python examples/figure5_halide_perovskites.py --out runs/perovskites        # embedded model
    … --model mace-mp-0-small --alpha 6x6x6 --delta 6x3x3 --temperature 400 --pressure 1 \\
      --equilibrate 20000 --switch 30000 --replicas 4 --device cuda             # the paper's

One command of alchemdriver: both phases, the difference closes the cycle of figure 5a. A second
call resumes. The embedded model needs pressure to keep the cubic phase.
"""

from __future__ import annotations

from common import arguments
from free_energy import command
from structures import delta_caesium_lead_iodide, perovskite


def main() -> None:
    chosen = arguments(
        __doc__,
        default_model="demo",
        alpha=("2x2x2", "supercell of the cubic phase"),
        delta=("1x2x1", "supercell of the orthorhombic one"),
        temperature=("500", "K, several in one string"),
        pressure=(10000.0, "bar"),
        timestep=(8.0, "fs; the paper: 2"),
        equilibrate=(400, "steps of a hold"),
        switch=(1400, "steps of a switch"),
        cycles=(2, "forward and backward pairs per replica"),
        replicas=(2, "independent runs"),
        seed=(20404, "of the first replica"),
        device=("cpu", "cpu or cuda"),
    )
    run = chosen.out / "workflow"
    if not run.exists():
        alpha, delta = chosen.out / "alpha.extxyz", chosen.out / "delta.extxyz"
        perovskite("Cs", "Pb", "I", 6.2894).write(alpha)
        delta_caesium_lead_iodide().write(delta)
        options = {
            "alchemy": "Pb->Sn",
            "second-phase": delta,
            "second-supercell": chosen.delta,
            "supercell": chosen.alpha,
        }
        names = ("model", "temperature", "pressure", "timestep", "equilibrate", "switch", "cycles")
        options |= {name: getattr(chosen, name) for name in (*names, "replicas", "seed")}
        flags = [word for k, v in options.items() for word in (f"--{k}", v)]
        command("prepare", "transmute", alpha, run, *flags)
    command("run", run, "--device", chosen.device)


if __name__ == "__main__":
    main()
