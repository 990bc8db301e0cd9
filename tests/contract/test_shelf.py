"""Names, files and digests of models; every failure is one line."""

import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from alchemdriver.contract import families, shelf
from alchemdriver.errors import InputError, ModelError
from alchemdriver.potential.backends.harmonic import HarmonicBackend
from alchemdriver.potential.open import open_model
from alchemdriver.potential.sites import AlchemicalSites

HARMONIC = {
    "backend": "harmonic",
    "spring_constants": {"H": 2.0},
    "anchors": [[0.0, 0.0, 0.0]],
    "cell": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty download folder, whatever this machine has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "mace").mkdir(parents=True)
    return tmp_path / "cache" / "mace"


@pytest.fixture
def offline(monkeypatch):
    """No network, at once and on every machine."""
    from mace.calculators import foundations_models

    def refuse(*args, **keywords):
        raise OSError("network is unreachable")

    monkeypatch.setattr(foundations_models.urllib.request, "urlopen", refuse)


@pytest.fixture(scope="module")
def tiny_model():
    from helpers.mace_zoo import make_model

    return make_model("Residual", "Residual")


def refused(kind, message, *args, **keywords):
    with pytest.raises(kind, match=message) as caught:
        open_model(*args, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_harmonic_json_is_opened_relative_to_the_folder(tmp_path, caplog):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "springs.json"
    path.write_text(json.dumps(HARMONIC))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with caplog.at_level(logging.INFO, "alchemdriver.potential.open"):
        assert isinstance(open_model("models/springs.json", tmp_path), HarmonicBackend)
    assert digest in caplog.text
    assert shelf.model_digest("models/springs.json", tmp_path) == digest
    assert shelf.model_digest(str(path)) == digest


def test_dot_model_file_evaluates_as_the_model_in_it(tmp_path, tiny_model):
    import torch
    from helpers.mace_zoo import ELEMENTS

    torch.save(tiny_model, tmp_path / "tiny.model")
    backend = open_model("tiny.model", tmp_path)
    assert backend.elements == set(ELEMENTS)
    assert backend.dtype == "float64"
    sites = AlchemicalSites.plain(["Na", "Cl"])
    positions = np.array([[0.0, 0.1, 0.2], [2.0, 0.4, 0.3]])
    cell = 6.0 * np.eye(3)
    found = backend.potential(sites).evaluate(positions, cell, (True,) * 3, np.zeros(0))
    assert np.isfinite(found.energy)
    assert np.abs(found.forces).max() > 0
    assert open_model("tiny.model", tmp_path, dtype="float32").dtype == "float32"


def test_saved_json_model_round_trip(tmp_path, tiny_model):
    from alchemdriver.potential.modelfile import save_model

    path = save_model(tiny_model, tmp_path / "tiny", {})
    content = path.read_bytes() + path.with_suffix(".safetensors").read_bytes()
    assert shelf.model_digest("tiny.json", tmp_path) == hashlib.sha256(content).hexdigest()
    assert "Na" in open_model("tiny.json", tmp_path).elements
    before = shelf.model_digest("tiny.json", tmp_path)
    tensors = tmp_path / "tiny.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-8])
    assert shelf.model_digest("tiny.json", tmp_path) != before
    refused(ModelError, "damaged", "tiny.json", tmp_path)
    tensors.unlink()
    refused(ModelError, "cannot be read", "tiny.json", tmp_path)


def test_damaged_and_foreign_files(tmp_path, tiny_model):
    import torch

    torch.save(tiny_model, tmp_path / "whole.model")
    whole = (tmp_path / "whole.model").read_bytes()
    (tmp_path / "cut.model").write_bytes(whole[: len(whole) // 2])
    refused(ModelError, "damaged or not a MACE model", "cut.model", tmp_path)
    (tmp_path / "empty.model").write_bytes(b"")
    refused(ModelError, "damaged or not a MACE model", "empty.model", tmp_path)
    (tmp_path / "page.model").write_text("<html>404\nnot found</html>")
    refused(ModelError, "damaged or not a MACE model", "page.model", tmp_path)
    with open(tmp_path / "plain.model", "wb") as stream:
        pickle.dump({"a": 1}, stream)
    refused(ModelError, "plain.model", "plain.model", tmp_path)
    torch.save(tiny_model.state_dict(), tmp_path / "state.model")
    refused(ModelError, "holds a OrderedDict, not a whole model", "state.model", tmp_path)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.model")
    refused(ModelError, "Linear", "linear.model", tmp_path)
    (tmp_path / "list.json").write_text("[1]")
    refused(ModelError, "expected a JSON object", "list.json", tmp_path)
    (tmp_path / "broken.json").write_text("{")
    refused(ModelError, "is not JSON", "broken.json", tmp_path)
    (tmp_path / "other.json").write_text("{}")
    refused(ModelError, "other.json", "other.json", tmp_path)


def test_unknown_names_get_a_suggestion(tmp_path):
    refused(ModelError, "did you mean 'mace-mp-0-small'", "mace-mp-0-smal", tmp_path)
    refused(ModelError, "does not exist", "absent.model", tmp_path)
    refused(ModelError, "does not exist", "demo.model", tmp_path)
    with pytest.raises(ModelError, match="did you mean"):
        shelf.model_digest("mace-mpa-O", tmp_path)


def test_failed_download_says_what_to_put_where(tmp_path, cache, offline):
    text = refused(ModelError, "could not be downloaded", "mace-mp-0-small", tmp_path)
    assert "https://github.com/ACEsuit/mace-mp/releases" in text
    target = text.rsplit("save it as ", 1)[1]
    # the advice works: a file put there is found
    assert target.startswith(str(cache))
    content = b"as if downloaded"
    with open(target, "wb") as stream:
        stream.write(content)
    assert shelf.model_digest("mace-mp-0-small") == hashlib.sha256(content).hexdigest()
    refused(ModelError, "damaged or not a MACE model", "mace-mp-0-small", tmp_path)


def test_devices_and_dtypes_are_checked(tmp_path, tiny_model, monkeypatch):
    import torch

    torch.save(tiny_model, tmp_path / "t.model")
    refused(InputError, "did you mean 'float64'", "t.model", tmp_path, dtype="float46")
    refused(InputError, "expected cpu, cuda", "t.model", tmp_path, device="gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    refused(InputError, "sees 1 CUDA devices", "t.model", tmp_path, device="cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refused(InputError, "'mps' is not available", "t.model", tmp_path, device="mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    refused(InputError, "no float64", "t.model", tmp_path, device="mps")


def test_urls_and_cache_are_those_of_mace():
    """Our table names what the installed mace-torch would download, and where it keeps it."""
    from mace.calculators import foundations_models as upstream
    from mace.tools.utils import get_cache_dir

    known = {*upstream.mace_mp_urls.values(), *upstream.mace_off_urls.values()}
    for name, entry in families._FOUNDATIONS.items():
        assert entry.url in known, name
    assert families._cache_folder() == get_cache_dir()


@pytest.mark.parametrize("cache_set", [True, False])
def test_a_user_without_home_directory(tmp_path, cache_set):
    """As in a container started with a user id of its own: no entry in passwd, no HOME."""
    code = """
import os, pwd, sys
os.environ.pop("HOME", None)
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
from alchemdriver.contract import shelf
from alchemdriver.errors import ModelError
assert len(shelf.model_digest("demo")) == 64
cards = {card.name: card for card in shelf.catalogue()}
assert cards["mace-mpa-0"].file is None
for name in ("~/mine.model", "mace-mpa-0")[: 1 if "XDG_CACHE_HOME" in os.environ else 2]:
    try:
        shelf.find(name)
    except ModelError as err:
        assert "no home directory" in str(err), err
    else:
        raise AssertionError(name)
"""
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    if cache_set:
        env["XDG_CACHE_HOME"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_academic_licences_are_marked():
    cards = {card.name: card for card in shelf.catalogue()}
    for name, card in cards.items():
        academic = any(x in name for x in ("off", "omat", "matpes"))
        assert card.licence.startswith("ASL") == academic, name
    assert len(cards["mace-mp-0-small"].elements) == 89
    assert cards["mace-off23-small"].file is None
    assert cards["mace-off23-small"].size is None


def test_catalogue_sees_downloaded_files(cache):
    (cache / "MACE-OFF23_small.model").write_bytes(b"12345")
    card = next(card for card in shelf.catalogue() if card.name == "mace-off23-small")
    assert (card.file, card.size) == (cache / "MACE-OFF23_small.model", 5)


def test_digest_and_catalogue_need_no_torch(tmp_path):
    (tmp_path / "h.json").write_text(json.dumps(HARMONIC))
    code = (
        "import sys; from pathlib import Path; from alchemdriver.contract import shelf; "
        "from alchemdriver.potential.open import open_model;"
        f"shelf.catalogue(); shelf.model_digest('h.json', Path({str(tmp_path)!r}));"
        f"open_model('h.json', Path({str(tmp_path)!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", [card.name for card in families._shipped_cards()])
def test_embedded_models_open_and_have_a_card(name):
    card = next(card for card in shelf.catalogue() if card.name == name)
    assert card.licence
    assert card.source
    assert card.good_for
    assert card.size > 1000
    assert open_model(name).elements == set(card.elements)


def test_the_name_of_several_kinds_lists_them():
    with pytest.raises(ModelError, match=r"'mace-mp-0' is of several kinds.*mace-mp-0-small"):
        shelf.find("mace-mp-0")
