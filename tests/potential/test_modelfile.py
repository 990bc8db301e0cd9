"""Model files: exact round trips, clear refusals, and the two embedded models against CHGNet."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from mace import data as mace_data
from mace import modules
from mace.calculators import MACECalculator
from mace.tools import torch_geometric, utils

import alchemdriver
from alchemdriver.contract.shelf import model_digest
from alchemdriver.errors import AlchemdriverError
from alchemdriver.potential.modelfile import ModelFileError, load_model, save_model

MODELS = Path(alchemdriver.__file__).parent / "models"
DATA = Path(__file__).parents[1] / "data"
EMBEDDED = {"demo": [50, 53, 55, 82], "demo-fe": [26]}


def random_model(dtype=torch.float64, **changes):
    settings = {
        "r_max": 4.5,
        "num_bessel": 6,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "interaction_cls": modules.RealAgnosticResidualInteractionBlock,
        "interaction_cls_first": modules.RealAgnosticInteractionBlock,
        "num_interactions": 2,
        "num_elements": 2,
        "hidden_irreps": "4x0e + 4x1o",
        "MLP_irreps": "4x0e",
        "atomic_energies": np.array([[-1.25, 1 / 3]]),
        "avg_num_neighbors": 7 / 3,
        "atomic_numbers": [11, 17],
        "correlation": 2,
        "gate": torch.nn.functional.silu,
        "radial_MLP": [8, 16],
        "atomic_inter_scale": [0.7],
        "atomic_inter_shift": [0.1],
    }
    from e3nn import o3  # only after mace, which prepares recent torch for it

    settings |= changes
    for name in ("hidden_irreps", "MLP_irreps"):
        settings[name] = o3.Irreps(settings[name])
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    try:
        return modules.ScaleShiftMACE(**settings).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def evaluate(model, atoms: Atoms):
    """Energy (eV) and forces (eV/Å) of one structure."""
    dtype = next(model.parameters()).dtype
    table = utils.AtomicNumberTable([int(z) for z in model.atomic_numbers])
    torch.set_default_dtype(dtype)
    try:
        config = mace_data.config_from_atoms(atoms)
        item = mace_data.AtomicData.from_config(config, table, cutoff=float(model.r_max))
        batch = next(iter(torch_geometric.dataloader.DataLoader([item], batch_size=1)))
        out = model(batch.to_dict(), compute_stress=True)
    finally:
        torch.set_default_dtype(torch.float32)
    return out["energy"].detach(), out["forces"].detach()


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [
        (torch.float64, {}),
        (torch.float32, {"hidden_irreps": "4x0e", "correlation": 3, "num_bessel": 8}),
        (
            torch.float64,
            {
                "interaction_cls": modules.RealAgnosticDensityResidualInteractionBlock,
                "distance_transform": "Agnesi",
                "pair_repulsion": True,
                "gate": torch.tanh,
                "use_reduced_cg": False,
            },
        ),
    ],
)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, dtype, changes):
    model = random_model(dtype, **changes)
    path = save_model(model, tmp_path / "m", {"note": "λ"})
    again, metadata = load_model(path, dtype=dtype)
    assert metadata == {"note": "λ"}
    assert type(again) is modules.ScaleShiftMACE
    assert not again.training
    for before, after in zip(evaluate(model, salt()), evaluate(again, salt()), strict=True):
        assert torch.equal(before, after)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with one good model file, ``m.json``; copy it before damaging it."""
    folder = tmp_path_factory.mktemp("saved")
    save_model(random_model(), folder / "m", {})
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy")) / "m.json"


def test_loading_leaves_the_default_dtype_alone(copied):
    path = copied
    before = torch.get_default_dtype()
    load_model(path)
    assert torch.get_default_dtype() is before


def test_stem_may_contain_dots(tmp_path):
    path = save_model(random_model(), tmp_path / "m-1.0", {})
    assert path.name == "m-1.0.json"
    assert path.with_name("m-1.0.safetensors").exists()


def test_digest_covers_description_and_weights(copied):
    path = copied
    first = model_digest(path.name, path.parent)
    edit(path, lambda content: content["metadata"].update(note="b"))
    second = model_digest(path.name, path.parent)
    flip_a_bit(path)
    assert len({first, second, model_digest(path.name, path.parent)}) == 3


def test_a_model_of_another_class_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="expected a ScaleShiftMACE, got Linear"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "m", {})


def truncate_weights(path):
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])


def flip_a_bit(path):
    weights = path.with_suffix(".safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def edit(path, change):
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_weights, "weights .* are damaged: expected SHA-256"),
        (flip_a_bit, "weights .* are damaged: expected SHA-256"),
        (lambda p: p.with_suffix(".safetensors").unlink(), "weights .* cannot be read"),
        (lambda p: p.unlink(), "cannot be read"),
        (lambda p: p.write_text(p.read_text("utf-8")[:200], "utf-8"), "not valid JSON"),
        (lambda p: p.write_bytes(b"\x80\x81\x00"), "not valid JSON"),
        (lambda p: p.write_text("[]", "utf-8"), "expected a JSON file of format"),
        (lambda p: edit(p, lambda c: c.pop("weights")), "'weights' is missing"),
        (lambda p: edit(p, lambda c: c["weights"].update(file="../m")), "must lie beside"),
        (lambda p: edit(p, lambda c: c["hyperparameters"].update(max_ell=1)), "ScaleShiftMACE"),
        (lambda p: edit(p, lambda c: c["hyperparameters"].update(gate="exec")), "ScaleShiftMACE"),
        (lambda p: edit(p, lambda c: c["hyperparameters"].update(extra=1)), "ScaleShiftMACE"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(copied, damage, message):
    path = copied
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, AlchemdriverError)


# ---------------------------------------------------------------- the embedded models


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_model_states_what_it_is(name):
    model, metadata = load_model(MODELS / f"{name}.json")
    assert model.atomic_numbers.tolist() == EMBEDDED[name]
    assert next(model.parameters()).dtype is torch.float64
    for key in ("title", "purpose", "limits", "reference", "licence", "training", "accuracy"):
        assert metadata[key], key
    low, high = metadata["temperature_range_K"]
    assert low < 300 < high


def test_embedded_models_are_small():
    assert sum(f.stat().st_size for f in MODELS.glob("demo*")) < 2_000_000


@pytest.mark.parametrize("name", ["demo", "demo-fe"])
def test_embedded_model_has_the_accuracy_it_claims(name):
    """Held-out CHGNet frames against the errors in the model's own file (those of the README).

    20 % more is allowed, since these are some ten of the frames that the claim rests on.
    """
    model, metadata = load_model(MODELS / f"{name}.json")
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64")
    claimed = metadata["accuracy"]["all"]
    energy_errors, force_errors = [], []
    for frame in read(DATA / f"{name}_heldout.extxyz", ":"):
        atoms = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=True)
        atoms.calc = calculator
        difference = atoms.get_potential_energy() - frame.info["REF_energy"]
        energy_errors.append(1e3 * difference / len(atoms))
        force_errors.append(1e3 * (atoms.get_forces() - frame.arrays["REF_forces"]).ravel())
    assert np.sqrt(np.mean(np.square(energy_errors))) < 1.2 * claimed["energy_meV_per_atom"]
    assert (
        np.sqrt(np.mean(np.square(np.concatenate(force_errors))))
        < 1.2 * claimed["forces_meV_per_A"]
    )
