"""Keep a small, spread-out part of the held-out frames for the unit tests.

python freeze.py --halide DIR --iron DIR --out ../../tests/data
"""

import argparse
from pathlib import Path

from ase import Atoms
from ase.io import read, write

FIRST_AND_STRIDE = {"demo": (3, 11), "demo-fe": (1, 3)}


def bare(frame: Atoms) -> Atoms:
    """Positions, labels and provenance only, rounded to what the reference resolves."""
    atoms = Atoms(frame.symbols, frame.positions.round(6), cell=frame.cell[:].round(6), pbc=True)
    atoms.arrays["REF_forces"] = frame.arrays["REF_forces"].round(5)
    atoms.info = {k: v for k, v in frame.info.items() if k != "REF_stress"}
    atoms.info["REF_energy"] = round(frame.info["REF_energy"], 6)
    return atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--halide", type=Path, required=True, help="folder with test.extxyz")
    parser.add_argument("--iron", type=Path, required=True, help="folder with test.extxyz")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, folder in (("demo", arguments.halide), ("demo-fe", arguments.iron)):
        frames = read(folder / "test.extxyz", ":")
        start, stride = FIRST_AND_STRIDE[name]
        # This stride walks through every phase, composition and temperature.
        chosen = frames[start::stride]
        write(arguments.out / f"{name}_heldout.extxyz", [bare(frame) for frame in chosen])


if __name__ == "__main__":
    main()
