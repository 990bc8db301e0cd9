"""What results look like: in a terminal, a page, a table, a notebook, and from Python."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from helpers.analysis_files import run_with_works, switching_input, write_input, write_outputs
from helpers.stored_results import finish, switching_result
from scipy import stats

from alchemdriver import analysis
from alchemdriver.analysis.compare.page import write_page
from alchemdriver.analysis.compare.workflow import ratio_interval, spread
from alchemdriver.analysis.report.grouped import grouped
from alchemdriver.analysis.report.plain import cell, printable
from alchemdriver.errors import AnalysisError
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import plan

SE_PERFECT, SE_PATH = 0.006, 0.003  # eV
EVIL = "<script>alert('x')</script>[red]:boom:\x1b[2J"


class Tags(HTMLParser):
    """Which elements a page has, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def switching(tmp_path):
    rng = np.random.default_rng(1)
    path = switching_input(tmp_path / "r", 2, 5, 12)
    run_with_works(path, rng.normal(0.25, 0.02, 12), rng.normal(-0.2, 0.02, 12))
    return analysis.analyze(path, write=False)


def test_a_result_introduces_itself_in_one_line(switching):
    text = repr(switching)
    assert len(text) < 250
    assert "\n" not in text
    assert f"{switching.total().value:.6g}" in text


def test_a_total_that_is_not_there_is_said(switching):
    assert switching.total("bar") is switching.total("BAR")
    with pytest.raises(AnalysisError, match=r"no total by mbar: this result has eq\. 11, BAR"):
        switching.total("mbar")


def test_a_notebook_shows_text_and_runs_nothing(switching):
    page = replace(switching, quantity=EVIL, warnings=(EVIL,))._repr_html_()
    found = Tags(page)
    assert set(found.tags) <= {"div", "p", "b", "table", "tr", "th", "td", "ul", "li"}
    assert found.text.count("<script>") == 2
    assert f"{switching.total('BAR').value:.3f}" in found.text


def iron_workflow(folder: Path):
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(2)
    crystal = Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))
    common = plan.Common(
        model="demo-fe", temperatures_K=(300.0,), pressure_bar=1.0, timestep_fs=2.0, replicas=2
    )
    workflow = plan.prepare_vacancy(crystal, [3], folder, common)
    totals = {
        "300K/04-frenkel-ladd": (-130.0, SE_PERFECT, 3.0),
        "300K/08-alchemical": (9.0, SE_PATH, 3.0),
        "300K/07-frenkel-ladd-defect": (-121.0, 0.008, 3.0),
    }
    finish(workflow, totals)
    return analysis.analyze_workflow(folder)


def test_no_text_of_a_file_becomes_markup(tmp_path):
    """Every text field of the result is an attack; the page has its own elements and no others."""
    found = iron_workflow(tmp_path / "w")
    clean = Tags(write_page(found, tmp_path / "clean.html").read_text())
    row = replace(found.rows[0], phase=EVIL, route=EVIL, unit=EVIL, quantity=EVIL)
    stage = next(iter(found.stages.values()))
    term = replace(stage.terms[0], name=EVIL, source=EVIL) if stage.terms else None
    evil = replace(
        found,
        kind=EVIL,
        rows=(row, *found.rows[1:]),
        agreements=tuple(replace(a, phase=EVIL, quantity=EVIL) for a in found.agreements),
        stages={k: replace(s, terms=(term,) if term else ()) for k, s in found.stages.items()},
        configurational={EVIL: 0.1},
        missing=(EVIL,),
        warnings=(EVIL, EVIL),
        settings=replace(found.settings, model=EVIL),
    )
    page = Tags(write_page(evil, tmp_path / "evil.html").read_text())
    assert set(page.tags) == set(clean.tags) | {"li", "ul"}
    assert page.text.count("<script>") >= 10
    terminal = analysis.workflow_summary(evil)
    assert "\x1b" not in terminal
    assert terminal.count("[red]:boom:") >= 5


def test_text_for_terminals_and_spreadsheets():
    assert printable("a\x1b[31m\x07b\nλ Å") == "a\\x1b[31m\\x07b\nλ Å"
    assert [cell(x) for x in ("=1+1", "+a", "-b", "@c", "\td", "Fe", -1.5, None)] == [
        "'=1+1", "'+a", "'-b", "'@c", "'\td", "Fe", -1.5, None,
    ]  # fmt: skip


def test_hundreds_of_replicas_print_a_page(tmp_path):
    """Each has its warnings in the result; alike ones are one line of the report."""
    rng = np.random.default_rng(5)
    folders = []
    for k in range(200):
        path = switching_input(tmp_path / f"replica-{k + 1}", 2, 2, 1, seed=k)
        run_with_works(path, rng.normal(0.25, 0.02, 1), rng.normal(-0.2, 0.02, 1))
        folders.append(path)
    result = analysis.analyze(folders, write=False)
    assert len(result.warnings) >= 200
    text = analysis.summary(result)
    assert len(text.splitlines()) < 50
    assert "replica-1 … replica-200 (200 alike)" in text


def test_few_lines_stay_as_they_are():
    lines = [f"run-{k}: 3 holds drift by {k}.5 meV" for k in range(3)]
    assert grouped(["first: of all", *lines]) == ["first: of all", *lines]
    assert grouped(f"run-{k}: 3 holds drift by {k}.5 meV" for k in range(4)) == [
        "run-0 … run-3 (4 alike): 3 holds drift by 0.5 meV"
    ]


# --- from Python --------------------------------------------------------------------------------


def test_python_takes_what_the_command_takes(tmp_path):
    rng = np.random.default_rng(2)
    for k in range(2):
        path = switching_input(tmp_path / "demo" / f"replica-{k + 1}", 2, 5, 3, seed=k)
        run_with_works(path, rng.normal(0.25, 0.02, 3), rng.normal(-0.2, 0.02, 3))
    one = analysis.analyze([tmp_path / "demo"])
    assert one.pooled.n == 6
    assert one.folder == tmp_path / "demo"
    two = analysis.analyze(str(tmp_path / "demo"), write=False)
    assert np.array_equal(two.replicas[1].forward, one.replicas[1].forward)
    iron_workflow(tmp_path / "w")
    with pytest.raises(AnalysisError, match="use analyze_workflow"):
        analysis.analyze(tmp_path / "w")


def test_alchemlyb_reads_energies_at_every_lambda(tmp_path):
    """Its MBAR on u_nk is ours, and the closed form 3/2 kT ln 3 of an oscillator, k 1 → 3."""
    from alchemlyb.estimators import MBAR

    rng = np.random.default_rng(4)
    paths = []
    for lam in np.linspace(0, 1, 5):
        path = write_input(
            tmp_path / f"l{lam}", f"lambda: {lam}, interpolation: linear", 1999, symbols=("Cu",),
            seed=len(paths),
        )  # fmt: skip
        x = rng.normal(0, np.sqrt(kT(300.0) / (1.0 + 2.0 * lam)), (2000, 3))
        write_outputs(path, np.sum(x**2, axis=1))
        paths.append(path)
    result = analysis.analyze(paths, write=False)
    table = analysis.u_nk_frame(result)
    assert list(table.index.names) == ["time", "lambda"]
    assert list(table.columns) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert table.attrs == {"temperature": 300.0, "energy_unit": "kT"}
    found = MBAR().fit(table)
    delta, error = found.delta_f_.loc[0.0, 1.0], found.d_delta_f_.loc[0.0, 1.0]
    assert delta == pytest.approx(1.5 * np.log(3), abs=4 * error)
    assert delta * kT(300.0) == pytest.approx(result.mbar.estimate.value, abs=1e-7)
    with pytest.raises(AnalysisError, match="this result is of switching"):
        analysis.u_nk_frame(switching_result(tmp_path / "s", 1.0, 0.1))


# --- efficiency ---------------------------------------------------------------------------------


def test_efficiencies_of_few_pairs_are_uncertain(tmp_path):
    """Variances of n = 4 and 6 Gaussian values: the interval covers their true ratio in 95 %."""
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(4000):
        above, below = np.var(rng.normal(0, 2.0, 4), ddof=1), np.var(rng.normal(0, 1.0, 6), ddof=1)
        low, high = ratio_interval(above / below, 3, 5)
        hits += low < 4.0 < high
    assert hits / 4000 == pytest.approx(0.95, abs=0.012)
    low, high = ratio_interval(1.0, None, 5)  # one of them known: five times over χ²
    assert low == pytest.approx(stats.chi2.ppf(0.025, 5) / 5, rel=1e-6)


def test_efficiency_is_printed_with_its_interval(tmp_path):
    """Stages of 4 pairs: the defect's variance decides that of Frenkel–Ladd, 3 to 6 freedoms."""
    found = iron_workflow(tmp_path / "w")
    row = {r.route: r for r in found.rows if r.quantity == "G_v"}
    share = (SE_PERFECT / 16 / SE_PATH) ** 2  # μ is G_perfect/16
    expected = 3.0 * (1.0 + share) ** 2 / (1.0 + share**2)  # Satterthwaite
    assert spread(row["alchemical"].coefficients, found.stages)[1] == pytest.approx(expected)
    assert 3.0 < spread(row["Frenkel–Ladd"].coefficients, found.stages)[1] < 6.0
    (agreement,) = found.agreements
    low, high = agreement.efficiency_ci95
    assert low < agreement.efficiency / 5 < agreement.efficiency < high / 5
    assert agreement.efficiency_text in re.sub(r"\s+", " ", analysis.workflow_summary(found))
    analysis.write_workflow(found)
    stored = json.loads((tmp_path / "w" / "result.json").read_text())
    assert stored["agreements"][0]["efficiency_ci95"] == [low, high]


def test_a_million_rows_are_drawn_by_their_extremes():
    """The peaks stay, the ends stay, few points are left, and short series are drawn whole."""
    from alchemdriver.analysis.report.plots import envelope

    y = np.random.default_rng(8).normal(size=1_000_003)
    rows = envelope(y)
    assert len(rows) < 6000
    assert {0, len(y) - 1, int(y.argmin()), int(y.argmax())} <= set(rows.tolist())
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(envelope(y[:4000]), np.arange(4000))
