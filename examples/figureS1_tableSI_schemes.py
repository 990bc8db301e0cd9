"""Figure S1 and Table SI: interpolation schemes for NaCl-KCl and cubic CsPbI3-CsSnI3.

    python examples/figureS1_tableSI_schemes.py --out runs/schemes
    … --model mace-mp-0-medium --cells 3,4,5,6      # the paper's supercells

Energies along λ by all schemes (S1), and seconds per evaluation of n×n×n cells of CsPbI3,
alchemical against two end states, alternately on this machine (SI).
"""

from __future__ import annotations

from common import arguments, open_model
from structures import perovskite, sodium_chloride

from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.show import schemes_and_print


def main() -> None:
    chosen = arguments(
        __doc__,
        cells=("1,2,3", "n of the n×n×n cells to time"),
        points=(21, "values of λ"),
        repeats=(5, "evaluations per timing"),
    )
    backend, _ = open_model(chosen.model)
    crystals = {
        "NaCl-KCl": (sodium_chloride(), "Na->K", ""),
        "CsPbI3-CsSnI3": (perovskite("Cs", "Pb", "I", 6.2894), "Pb->Sn", chosen.cells),
    }
    for name, (atoms, alchemy, cells) in crystals.items():
        if not backend.elements >= set(atoms.symbols) | set(alchemy.split("->")):
            print(f"{name}: {chosen.model} does not know its elements, left out")
            continue
        print(name)
        mixture = Mixture.from_text(atoms, [alchemy])
        schemes_and_print(
            *(mixture, [alchemy], backend, chosen.points, cells, chosen.repeats),
            chosen.out / name,
        )


if __name__ == "__main__":
    main()
