"""Train one demonstration model with mace-torch's own trainer and store it as a model file.

    python train.py demo --data DIR --out DIR        (demo or demo-fe)

The trainer sees energies, forces and stresses; in the last epochs it weights energies and stresses
up at a tenth of the learning rate.  Weights are trained and stored in float32, to be used in
float64.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from ase.io import read

from alchemdriver.potential.modelfile import save_model

COMMON = {
    "model": "ScaleShiftMACE",
    "num_interactions": 2,
    "max_L": 0,
    "max_ell": 2,
    "E0s": "average",
    "valid_fraction": 0.05,
    "energy_key": "REF_energy",
    "forces_key": "REF_forces",
    "stress_key": "REF_stress",
    "loss": "stress",
    "energy_weight": 10,
    "forces_weight": 100,
    "stress_weight": 100,
    "swa_energy_weight": 1000,
    "swa_forces_weight": 100,
    "swa_stress_weight": 1000,
    "swa_lr": 0.001,
    "lr": 0.01,
    "ema_decay": 0.999,
    "scheduler_patience": 5,
    "device": "cpu",
    "default_dtype": "float32",
    "seed": 7,
    "error_table": "PerAtomRMSEstressvirials",
    "num_workers": 0,
    "plot": False,
}
SETTINGS = {
    "demo": {
        "num_channels": 16,
        "correlation": 2,
        "r_max": 6.0,
        "radial_MLP": "[32, 32]",
        "MLP_irreps": "16x0e",
        "batch_size": 5,
        "valid_batch_size": 20,
        "max_num_epochs": 34,
        "start_swa": 22,
    },
    "demo-fe": {
        "num_channels": 16,
        "correlation": 3,
        "r_max": 4.8,
        "radial_MLP": "[32, 32]",
        "MLP_irreps": "16x0e",
        "batch_size": 2,
        "valid_batch_size": 20,
        "max_num_epochs": 69,
        "start_swa": 39,
    },
}
LICENCE = (
    "MIT. Distilled from predictions of CHGNet 0.3.0 (code and weights: modified BSD licence, "
    "The Regents of the University of California); no CHGNet weights are included."
)
REFERENCE = (
    "CHGNet 0.3.0: Deng et al., Nature Machine Intelligence 5, 1031 (2023), "
    "doi 10.1038/s42256-023-00716-3; trained on PBE and PBE+U data of the Materials Project"
)
METADATA = {
    "demo": {
        "title": "Demonstration model for Cs(Pb,Sn)I3",
        "purpose": "teaching and testing alchemical Pb-Sn free energies in the α, β, γ and δ "
        "phases; a fast stand-in for CHGNet on these crystals, not a research model",
        "limits": "bulk CsPbI3, CsSnI3 and their B-site mixtures within 4 % linear strain; no "
        "surfaces, defects, other stoichiometries or melts; as right as CHGNet 0.3.0, no more",
        "temperature_range_K": [100, 800],
        "stability": "CHGNet 0.3.0, and so this model, is too soft: at zero pressure and 400 K the "
        "tin crystals swell by more than 9 % in 20 ps and lose their lattice; the lead "
        "crystals hold at 400 K. The 2x2x2 perovskite is tilted (about 10°), not cubic "
        "on average, up to 600 K. For NPT use 500 K and 1 GPa (both end members kept "
        "volume and structure for 12 ps), for zero pressure at most 300 K, or fix the "
        "volume.",
    },
    "demo-fe": {
        "title": "Demonstration model for bcc iron with a vacancy",
        "purpose": "teaching and testing vacancy free energies by alchemical removal and by "
        "Frenkel-Ladd; a fast stand-in for CHGNet on these crystals, not a research model",
        "limits": "bcc iron within 4 % linear strain with at most one vacancy per 16 sites; no "
        "explicit magnetism, other phases, surfaces or interstitials; as right as CHGNet 0.3.0",
        "temperature_range_K": [100, 900],
    },
}


def train(name: str, data: Path, out: Path) -> Path:
    """Run the trainer in ``out``; return its final model."""
    settings = COMMON | SETTINGS[name]
    command = [sys.executable, "-m", "mace.cli.run_train", "--name", name, "--swa", "--ema"]
    command += ["--work_dir", str(out), "--train_file", str(data / "train.extxyz")]
    for key, value in settings.items():
        command += [f"--{key}", str(value)]
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    return out / f"{name}_stagetwo.model"


def store(name: str, trained: Path, data: Path, stem: Path) -> Path:
    """Write the model file; `evaluate.py` adds the accuracy."""
    frames = read(data / "train.extxyz", ":")
    kinds: dict[str, int] = {}
    for frame in frames:
        kinds[frame.info["kind"]] = kinds.get(frame.info["kind"], 0) + 1
    metadata = METADATA[name] | {
        "reference": REFERENCE,
        "licence": LICENCE,
        "recipe": "recipes/demo_model",
        "training": {
            "frames": kinds,
            "atoms_per_frame": sorted({len(frame) for frame in frames}),
            "trainer": "mace-torch, mace.cli.run_train",
            "settings": COMMON | SETTINGS[name],
        },
        "accuracy": {},
    }
    model = torch.load(trained, map_location="cpu", weights_only=False)
    return save_model(model, stem, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.extxyz")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trainer's files")
    parser.add_argument("--stem", type=Path, help="model file to write, without suffix")
    arguments = parser.parse_args()
    trained = train(arguments.name, arguments.data, arguments.out)
    stem = arguments.stem or arguments.out / arguments.name
    print(store(arguments.name, trained, arguments.data, stem))


if __name__ == "__main__":
    main()
