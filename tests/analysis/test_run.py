"""From folders to result.json: pooling, terms, refusals, real i-PI output."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.analysis_files import run_with_works, switching_input, write_input, write_outputs

import alchemdriver
from alchemdriver import analysis, units
from alchemdriver.cli import main
from alchemdriver.contract import shelf
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError, InputError
from alchemdriver.paths import formulas as c
from alchemdriver.paths.formulas import Correction
from alchemdriver.units import kT

DATA = Path(__file__).parents[1] / "data" / "analysis"
T = 300.0


def replica(folder, forward, backward, **options):
    path = switching_input(folder, 2, 5, len(forward), **options)
    run_with_works(path, forward, backward)
    return path.parent


def gaussian(rng, n, delta_f=0.2, loss=0.01):
    sd = np.sqrt(2 * kT(T) * loss)
    return rng.normal(delta_f + loss, sd, n), rng.normal(-delta_f + loss, sd, n)


def three_replicas(tmp_path, pairs=5):
    rng = np.random.default_rng(1)
    works = [gaussian(rng, pairs) for _ in range(3)]
    folders = [replica(tmp_path / f"r{k}", *w, seed=k) for k, w in enumerate(works)]
    return folders, works


def test_replicas_are_pooled_and_written(tmp_path):
    folders, works = three_replicas(tmp_path)
    result = analysis.analyze(folders)
    pairs = np.concatenate([0.5 * (f - b) for f, b in works])
    assert result.pooled.n == 15
    assert result.pooled.eq11.value == pytest.approx(pairs.mean())
    # three replicas are too few to be the parts of the error: each is two blocks of cycles
    blocks = np.concatenate([[p[:3].sum(), p[3:].sum()] for p in pairs.reshape(3, 5)])
    sizes = np.array([3, 2] * 3)
    off = blocks / sizes - pairs.mean()
    assert result.pooled.eq11.sigma == pytest.approx(
        np.sqrt(np.mean(off**2 * sizes / (15 - sizes)))
    )
    assert "6 blocks of cycles of 3 replicas" in result.pooled.eq11.kind
    means = [np.mean(0.5 * (f - b)) for f, b in works]
    assert result.over_replicas.value == pytest.approx(np.mean(means))
    assert result.over_replicas.sd == pytest.approx(np.std(means, ddof=1))
    assert result.over_replicas.sigma == pytest.approx(np.std(means, ddof=1) / np.sqrt(3))
    assert result.over_replicas.se_kind == "standard error over 3 replicas"
    mass = c.mass_term(T, np.full(4, 63.546), np.full(4, 196.966570))
    assert [t.name for t in result.terms] == ["mass term"]
    assert result.terms[0].value == pytest.approx(mass, rel=1e-6)
    total = result.total()
    assert total.value == pytest.approx(pairs.mean() + mass)
    assert total.per_formula_unit == pytest.approx(total.value / 4)
    assert total.se == result.pooled.eq11.se
    assert total.per_formula_unit_se == pytest.approx(total.se / 4)
    assert result.total("BAR").value == pytest.approx(result.pooled.bar.value + mass)
    assert result.labels == ("holds not verified",)  # of two steps each

    written = json.loads((tmp_path / "result.json").read_text())
    assert written["schema"] == "alchemdriver-result/1"
    assert written["totals"][0]["value"] == total.value
    assert [r["provenance"]["seed"] for r in written["replicas"]] == [0, 1, 2]
    assert written["replicas"][1]["forward"] == pytest.approx(works[1][0].tolist())
    assert written["terms"][0]["unit"] == "eV"
    assert written["versions"]["ipi"]
    assert len(written["replicas"][0]["provenance"]["input_sha256"]) == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r0", "r1", "r2", "result.json"]


def test_mass_term_is_the_same_under_fixed_and_interpolate(tmp_path):
    rng = np.random.default_rng(2)
    works = gaussian(rng, 3)
    values = []
    for masses in ("fixed", "interpolate"):
        folder = replica(tmp_path / masses, *works, masses=masses)
        values.append(analysis.analyze(folder, write=False).total().value)
    assert values[0] == values[1]


def test_one_folder_writes_beside_its_input_or_where_asked(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05])
    assert analysis.analyze(folder).folder == folder
    assert (folder / "result.json").is_file()
    analysis.analyze([folder / "input.xml"], out=tmp_path / "else" / "where")
    assert (tmp_path / "else" / "where" / "result.json").is_file()


def test_one_pair_writes_null_errors_and_is_exploratory(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05])
    result = analysis.analyze(folder)
    assert result.labels == ("exploratory", "holds not verified")
    text = (folder / "result.json").read_text()
    assert "NaN" not in text
    written = json.loads(text)
    assert written["totals"][0]["se"] is None
    assert written["totals"][0]["se_kind"].startswith("not estimated")
    assert written["over_replicas"] is None


def test_unfinished_run_is_refused_or_labelled_partial(tmp_path):
    path = switching_input(tmp_path / "r", 2, 5, 3)
    run_with_works(path, [0.1, 0.2, 0.3], [-0.05] * 3)
    extras = path.parent / "run.dHdlambda_0"
    blocks = extras.read_text().splitlines(keepends=True)
    extras.write_text("".join(blocks[: 2 * 33]))  # steps 0 … 32 of 42
    with pytest.raises(AnalysisError, match=r"at step 32 of 42.*2 of 3 pairs as partial"):
        analysis.analyze(path.parent)
    assert not (path.parent / "result.json").exists()
    result = analysis.analyze(path.parent, partial=True)
    assert result.labels == ("exploratory", "partial", "holds not verified")
    assert result.pooled.n == 2
    assert result.pooled.eq11.value == pytest.approx(0.1)
    assert any(w.startswith("partial") for w in result.warnings)
    extras.write_text("".join(blocks[:20]))
    with pytest.raises(AnalysisError, match="no complete forward/backward pair yet"):
        analysis.analyze(path.parent, partial=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 400.0}, r"temperature \(K\) \(300.0 and 400.0\)"),
        ({"schedule": "linear"}, "schedule"),
        ({"alchemy": "Cu->Ag"}, "differ in alchemy"),
        ({"masses": "fixed"}, "masses"),
        ({"timestep": 2.0}, "timestep"),
    ],
)
def test_replicas_of_different_calculations_are_refused(tmp_path, options, message):
    a = replica(tmp_path / "a", [0.1], [-0.05])
    b = replica(tmp_path / "b", [0.1], [-0.06], **options)
    with pytest.raises(AnalysisError, match=message):
        analysis.analyze([a, b], write=False)


def test_replicas_in_different_cells_are_refused_at_constant_volume(tmp_path):
    a = replica(tmp_path / "a", [0.1], [-0.05])
    same = replica(tmp_path / "same", [0.1], [-0.06], cell=6.00001)  # as if printed shorter
    assert analysis.analyze([a, same], write=False).pooled.n == 2
    b = replica(tmp_path / "b", [0.1], [-0.06], cell=6.01)
    with pytest.raises(AnalysisError, match=r"a and b differ in cell \(by 0.01 Å\)"):
        analysis.analyze([a, b], write=False)
    free = {"ensemble": "npt", "pressure": "<pressure units='bar'>1.0</pressure>"}
    c = replica(tmp_path / "c", [0.1], [-0.05], **free)
    d = replica(tmp_path / "d", [0.1], [-0.06], cell=6.01, **free)
    assert analysis.analyze([c, d], write=False).pooled.n == 2


def test_replicas_with_other_constraints_are_refused(tmp_path):
    a = replica(tmp_path / "a", [0.1], [-0.05])
    b = replica(tmp_path / "b", [0.1], [-0.06], fixcom="False")
    with pytest.raises(AnalysisError, match=r"differ in fixcom \(True and False\)"):
        analysis.analyze([a, b], write=False)
    d, e = (hold(replica(tmp_path / f"f{k}", [0.1], [-0.1 * k]), f"[{k}]") for k in (1, 2))
    with pytest.raises(AnalysisError, match="differ in fixatoms"):
        analysis.analyze([d, e], write=False)


def hold(folder, atoms, tag="fixatoms"):
    """The same folder, with some atoms held by i-PI."""
    path = folder / "input.xml"
    text = path.read_text()
    assert text.count("</fixcom>") == 1
    path.write_text(text.replace("</fixcom>", f"</fixcom><{tag}>{atoms}</{tag}>"))
    return folder


def test_copies_are_not_replicas(tmp_path):
    a = replica(tmp_path / "a", [0.1], [-0.05])
    b = replica(tmp_path / "b", [0.1], [-0.05])
    with pytest.raises(AnalysisError, match="identical works"):
        analysis.analyze([a, b], write=False)
    with pytest.raises(AnalysisError, match="given twice"):
        analysis.analyze([a, a], write=False)


def test_constant_pressure_gives_a_gibbs_energy_without_a_term(tmp_path):
    pressure = "<pressure units='bar'>1.0</pressure>"
    folder = replica(tmp_path / "r", [0.1], [-0.05], ensemble="npt", pressure=pressure)
    result = analysis.analyze(folder, write=False)
    assert result.quantity.startswith("ΔG")
    assert "P V is in the work" in result.quantity
    assert result.conditions.pressure == pytest.approx(1.0)
    assert [t.name for t in result.terms] == ["mass term"]
    with pytest.raises(AnalysisError, match="do not add P V"):
        analysis.analyze(folder, write=False, pressure=1.0)


def test_removed_atom_terms(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05], alchemy="Cu[2]->void, tether: 4.2")
    result = analysis.analyze(folder, write=False)
    m = 63.546
    expected = [
        -c.einstein_crystal(T, [4.2], [m]),
        -c.removed_atoms_centre_of_mass(T, 4 * m, m),
    ]
    assert [t.value for t in result.terms] == pytest.approx(expected)
    assert result.terms[1].value > 0
    free = replica(
        tmp_path / "f", [0.1], [-0.05], alchemy="Cu[2]->void, tether: 4.2", fixcom="False"
    )
    assert len(analysis.analyze(free, write=False).terms) == 1


@pytest.mark.parametrize(
    ("tag", "atoms", "terms"),
    [("fixatoms", "[ 0 ]", 1), ("fixatoms_dof", "[0, 1]", 1), ("fixatoms", "[ ]", 2)],
)
def test_held_atoms_unfix_the_centre_of_mass_as_in_i_pi(tmp_path, tag, atoms, terms):
    """i-PI's InputMotion overrides fixcom as soon as an atom is held; an empty list holds none."""
    folder = replica(tmp_path / "r", [0.1], [-0.05], alchemy="Cu[2]->void, tether: 4.2")
    result = analysis.analyze(hold(folder, atoms, tag), write=False)
    assert len(result.terms) == terms
    assert result.terms[0].value == pytest.approx(-c.einstein_crystal(T, [4.2], [63.546]))


@pytest.mark.parametrize(
    ("tag", "held", "free"),
    [("fixatoms", "[0]", 9), ("fixatoms_dof", "[0, 1, 2]", 9), ("fixatoms_dof", "[4]", 11)],
)
def test_the_mass_term_is_that_of_coordinates_that_move(tmp_path, tag, held, free):
    """½ kT ln(m_i/m_f) each: what is held has no momentum, whose free energy could change."""
    folder = hold(replica(tmp_path / "r", [0.1], [-0.05]), held, tag)
    (term,) = analysis.analyze(folder, write=False).terms
    assert term.value == pytest.approx(0.5 * free * kT(T) * np.log(63.546 / 196.966569), rel=1e-6)
    assert f"the {free} coordinates that move" in term.source


@pytest.mark.parametrize(("tag", "atoms"), [("fixatoms", "[0, 2]"), ("fixatoms_dof", "[7]")])
def test_a_held_atom_cannot_be_removed(tmp_path, tag, atoms):
    folder = replica(tmp_path / "r", [0.1], [-0.05], alchemy="Cu[2]->void, tether: 4.2")
    with pytest.raises(InputError, match="holds atom 2, which goes to void"):
        analysis.analyze(hold(folder, atoms, tag), write=False)


def test_held_atoms_in_an_einstein_crystal_are_refused(tmp_path):
    folder = hold(einstein_folder(tmp_path), "[3]")
    with pytest.raises(InputError, match="every atom moves: run einstein->model without it"):
        analysis.analyze(folder, write=False)


def model_sha256(folder):
    (found,) = analysis.analyze(folder, write=False).replicas
    return found.provenance.model_sha256


def with_model(folder, name):
    path = folder / "input.xml"
    path.write_text(path.read_text().replace("model: demo,", f"model: {name},"))
    return folder


def test_model_digest_is_the_shelf_s(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05])
    assert model_sha256(folder) == shelf.model_digest("demo")
    # JSON and tensors together, not the JSON alone
    for name in ("demo.json", "demo.safetensors"):
        shutil.copy(Path(alchemdriver.__file__).parent / "models" / name, folder)
    with_model(folder, "demo.json")
    assert model_sha256(folder) == shelf.model_digest("demo")
    (folder / "demo.safetensors").unlink()
    assert model_sha256(folder) is None


def test_model_digest_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    foundations = "mace.calculators.foundations_models"
    monkeypatch.setattr(
        f"{foundations}.download_mace_mp_checkpoint", lambda url: pytest.fail(f"downloads {url}")
    )
    name = "mace-mp-0-small"
    folder = with_model(replica(tmp_path / "r", [0.1], [-0.05]), name)
    assert model_sha256(folder) is None
    url = next(card.source for card in shelf.catalogue() if card.name == name)
    (tmp_path / "cache" / "mace").mkdir(parents=True)
    (tmp_path / "cache" / "mace" / url.rsplit("/", 1)[1]).write_bytes(b"weights")
    assert model_sha256(folder) == hashlib.sha256(b"weights").hexdigest()


def command(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["alchemdriver", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code, capsys.readouterr()


def test_the_options_that_messages_name_exist(tmp_path, capsys, monkeypatch):
    path = switching_input(tmp_path / "r", 2, 5, 3)
    run_with_works(path, [0.1, 0.2, 0.3], [-0.05] * 3)
    extras = path.parent / "run.dHdlambda_0"
    extras.write_text("".join(extras.read_text().splitlines(keepends=True)[: 2 * 33]))
    status, said = command(capsys, monkeypatch, "analyze", path.parent)
    assert status == 2
    assert "--partial" in said.err
    status, said = command(capsys, monkeypatch, "analyze", path.parent, "--partial")
    assert status == 0, said.err
    assert "partial" in json.loads((path.parent / "result.json").read_text())["labels"]

    folder = einstein_folder(tmp_path / "e")
    status, said = command(capsys, monkeypatch, "analyze", folder, "--n-ws", 108)
    assert status == 0, said.err
    terms = json.loads((folder / "result.json").read_text())["terms"]
    assert "N_WS = 108 (given)" in terms[1]["source"]


def test_path_integral_without_its_mass_leg_has_no_total(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05], beads=4, masses="fixed")
    result = analysis.analyze(folder)
    assert result.terms[0].value is None
    assert result.total().value is None
    assert result.pooled.eq11.value == pytest.approx(0.075)
    assert any("missing mass term" in w for w in result.warnings)
    assert "not known" in analysis.summary(result)
    leg = Correction("mass term", -0.3, "eV", "TI over masses", se=0.004)
    total = analysis.analyze(folder, write=False, terms=[leg]).total()
    assert total.value == pytest.approx(0.075 - 0.3)


def einstein_folder(tmp_path, shift=0.0, **options):
    fractions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    anchors = fractions * 3.6 + 0.1
    folder = tmp_path / f"r{shift}"
    folder.mkdir(parents=True)
    rows = [f"Cu {x:.8f} {y:.8f} {z:.8f} {k}" for (x, y, z), k in zip(anchors, (2, 2, 3, 3))]  # noqa: B905
    (folder / "k.extxyz").write_text(
        '4\nLattice="3.6 0 0 0 3.6 0 0 0 3.6" '
        "Properties=species:S:1:pos:R:3:spring_constant:R:1\n" + "\n".join(rows) + "\n"
    )
    positions = anchors + np.array([[0.1, 0, 0], [-0.1, 0, 0], [0, 0.2, 0], [0, -0.2 + shift, 0]])
    positions[0] += 3.6  # another image
    return replica(
        folder,
        [0.1],
        [-0.05],
        alchemy="einstein->model, springs: k.extxyz",
        positions=positions,
        cell=3.6,
        **options,
    )


def test_einstein_terms_are_eqs_18_to_20(tmp_path):
    folder = einstein_folder(tmp_path)
    result = analysis.analyze(folder, write=False, pressure=1000.0)
    m, k = np.full(4, 63.546), np.array([2.0, 2.0, 3.0, 3.0])
    expected = [
        c.einstein_crystal(T, k, m),
        c.centre_of_mass(T, 3.6**3, m, k, 4),  # fcc: four translations in the cubic cell
        1000.0 * 3.6**3 * units.BAR_EV_PER_ANGSTROM3,
    ]
    assert [t.value for t in result.terms] == pytest.approx(expected)
    assert result.total().value == pytest.approx(0.075 + sum(expected))
    assert result.quantity.startswith("G of the model crystal")
    perfect = analysis.analyze(folder, write=False, n_ws=108)
    assert perfect.terms[1].value == pytest.approx(expected[1] + kT(T) * np.log(108 / 4))
    assert perfect.quantity.startswith("F of the model crystal")


def test_einstein_crystal_of_a_path_integral_run_uses_its_beads(tmp_path):
    folder = einstein_folder(tmp_path, beads=4)
    terms = analysis.analyze(folder, write=False).terms
    expected = c.einstein_crystal(T, [2, 2, 3, 3], [63.546] * 4, beads=4)
    assert terms[0].value == pytest.approx(expected)
    assert terms[0].value > c.einstein_crystal(T, [2, 2, 3, 3], [63.546] * 4)


def test_start_off_the_anchors_centre_of_mass_is_refused(tmp_path):
    message = r"0\.01 Å from the anchors'.*: translate all atoms of the start"
    with pytest.raises(AnalysisError, match=message):
        analysis.analyze(einstein_folder(tmp_path, shift=0.04), write=False)


def test_formula_units_can_be_given(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05])
    a = analysis.analyze(folder, write=False, formula_units=2).total()
    assert a.per_formula_unit == pytest.approx(a.value / 2)
    with pytest.raises(AnalysisError, match="formula_units must be at least 1"):
        analysis.analyze(folder, write=False, formula_units=0)


def test_fixed_lambda_mean_with_equilibration_and_correlation(tmp_path):
    rng = np.random.default_rng(5)
    n, rho = 4000, 0.9
    noise = np.zeros(n)
    for k in range(1, n):
        noise[k] = rho * noise[k - 1] + rng.normal(0, 0.1)
    start = 3.0 * np.exp(-np.arange(n) / 40.0)
    path = write_input(tmp_path / "r", "lambda: 0.5", n - 1)
    write_outputs(path, 1.5 + noise + start)
    result = analysis.analyze(path)
    (window,) = result.windows
    assert result.kind == "fixed_lambda"
    assert 40 <= window.equilibration <= 600
    assert window.inefficiency == pytest.approx((1 + rho) / (1 - rho), rel=0.4)
    assert window.mean.value == pytest.approx(1.5, abs=4 * window.mean.se)
    exact = 0.1 / (1 - rho) / np.sqrt(n - window.equilibration)
    assert window.mean.se == pytest.approx(exact, rel=0.3)
    assert json.loads((path.parent / "result.json").read_text())["windows"][0]["lam"] == 0.5


def test_constant_gradient_has_no_invented_error(tmp_path):
    path = write_input(tmp_path / "r", "lambda: 0.5", 1)
    write_outputs(path, [1.0])
    (window,) = analysis.analyze(path, write=False).windows
    assert window.mean.se is None


def test_real_i_pi_switching_output():
    """Four oscillators, 2 → 6 eV/Å², run with alchemdriver under i-PI 3.3.1; files as written."""
    result = analysis.analyze(DATA / "switch", write=False)
    (run,) = result.runs
    assert run.complete
    assert run.last_step == 240
    assert result.pooled.n == 2
    assert result.pooled.eq11.value > 0
    # the trapezoid is the work of velocity Verlet to second order in the step
    assert run.first_law.max_deviation < 1e-4
    total_work = sum(s.work for s in run.switches)
    assert abs(total_work) > 30 * run.first_law.max_deviation


def test_real_i_pi_beads():
    """Twelve beads: zero-padded file names."""
    result = analysis.analyze(DATA / "fixed_beads", write=False)
    (window,) = result.windows
    assert len(window.gradient) == 31
    assert window.lam == 0.5
    assert result.conditions.beads == 12
    # ∂H/∂λ = ½ Δk Σ x² is positive once the atoms have left their anchors
    assert window.gradient[0] == 0.0
    assert (window.gradient[1:] > 0).all()


def test_swapped_directions_in_real_output_break_the_first_law(tmp_path):
    """The same files read with λ reversed: the accumulated work no longer matches i-PI."""
    folder = tmp_path / "r"
    shutil.copytree(DATA / "switch", folder)
    run = read_input(folder)
    from alchemdriver.analysis.estimators import work
    from alchemdriver.analysis.files import readers

    gradients = readers.read_gradients(run)
    conserved = readers.read_conserved(run).energy("conserved")
    time = gradients.steps * run.timestep * 1e-3
    right = work.first_law(
        conserved, work.cumulative_work(gradients.lam, gradients.mean), time, run.beads
    )
    wrong = work.first_law(
        conserved, work.cumulative_work(1 - gradients.lam, gradients.mean), time, run.beads
    )
    assert wrong.max_deviation > 30 * right.max_deviation


def test_importing_the_analysis_is_fast_and_light():
    code = (
        "import sys, time; t = time.perf_counter(); import alchemdriver.analysis as a\n"
        "dir(a); d = time.perf_counter() - t\n"
        "heavy = {'torch', 'ipi', 'pymbar', 'matplotlib', 'mace', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert d < 0.5, d\n"
        "a.analyze\n"
        "heavy = {'torch', 'ipi', 'pymbar', 'matplotlib', 'mace', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist():
    assert analysis.__all__ == sorted(analysis.__all__)
    for name in analysis.__all__:
        assert getattr(analysis, name) is not None
    with pytest.raises(AttributeError):
        analysis.nothing  # noqa: B018


def test_a_removed_atom_is_not_shared_among_formula_units(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05], alchemy="Cu[2]->void, tether: 4.2")
    result = analysis.analyze(folder, n_ws=4, write=False)
    assert result.formula_units == 1
    assert result.total("eq. 11").per_formula_unit == result.total("eq. 11").value


def test_switches_at_constant_energy_are_warned_about(tmp_path):
    folder = replica(tmp_path / "r", [0.1], [-0.05], ensemble="nve")
    assert any("canonical" in w for w in analysis.analyze(folder, write=False).warnings)
    folder = replica(tmp_path / "s", [0.1], [-0.05])
    assert not any("canonical" in w for w in analysis.analyze(folder, write=False).warnings)
