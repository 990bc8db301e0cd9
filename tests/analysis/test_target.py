"""Where a calculation stands on its way to an error, from results as they were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import real_runs as rr
from helpers.coverage import KT, T, gaussian
from helpers.stored_results import finish, switching_result

from alchemdriver import analysis
from alchemdriver.analysis import analyze_workflow, analyze_works, workflow_summary
from alchemdriver.analysis.compare.target import source_of, with_target
from alchemdriver.analysis.compare.target_of_stages import wanted_of_rows
from alchemdriver.analysis.estimators import stopping
from alchemdriver.analysis.estimators.estimate import ONE_SIGMA, student
from alchemdriver.contract import manifest, target
from alchemdriver.contract.target import Asked, Lengthening, Look, Seen, Target
from alchemdriver.errors import InputError, RunError
from alchemdriver.execute.supervisor import Resources
from alchemdriver.workflow import plan
from alchemdriver.workflow.target import Budget, Runs, Stages, pursue

from .test_workflow import COMMON, VACANCY, iron, perovskite

LENGTHENED = (Lengthening({"input.xml": 9}, {"input.xml": "a"}, {"input.xml": "b"}),)


def result_of(pairs: int, seed: int = 1):
    """One chain of Gaussian works of 1 kT."""
    forward, backward = (KT * w[0] for w in gaussian(np.random.default_rng(seed), (1, pairs), 1.0))
    pooled = analyze_works(forward, backward, T)
    bar = pooled.bar
    result = switching_result(Path("run"), bar.value, bar.se, bar.dof)
    one = replace(result.replicas[0], forward=forward, backward=backward)
    return replace(result, replicas=(one,), pooled=pooled)


def lucky(pairs: int):
    """The repetition of many whose parts scatter least for what single pairs say."""
    found = [result_of(pairs, seed) for seed in range(40)]
    return min(found, key=lambda r: r.pooled.bar.se / source_of(r, "run").pair_sigma)


def test_an_error_that_decided_is_no_less_than_single_pairs_say():
    result = lucky(30)
    source = source_of(result, "run")
    pairs = source.pair_sigma * student(ONE_SIGMA, 29)
    assert result.pooled.bar.se < 0.7 * pairs
    asked = Target(Asked(1.1 * pairs, "cell"))
    kept = with_target(result, asked, 1)
    assert kept.total("BAR").se == result.pooled.bar.se  # a length that was given
    found = with_target(result, replace(asked, lengthened=LENGTHENED), 1)
    assert found.outlook.met
    assert found.total("BAR").se == pytest.approx(1.1 * pairs)  # what was asked for
    low, high = found.total("BAR").ci95
    assert high - low == pytest.approx(2 * 1.1 * pairs * student(0.95, None))
    assert "no less than single pairs say" in found.total("BAR").se_kind
    # one whose parts say more than the pairs stays as it is
    honest = max((result_of(30, s) for s in range(9)), key=lambda r: r.pooled.bar.se)
    far = replace(asked, asked=Asked(1e-4, "cell"), lengthened=LENGTHENED)
    assert with_target(honest, far, 1).total("BAR").se == honest.pooled.bar.se


def test_a_lucky_look_is_not_the_end():
    result = lucky(30)
    pairs = source_of(result, "run").pair_sigma * student(ONE_SIGMA, 29)
    asked = Target(Asked(0.75 * pairs, "cell"))  # the parts say less, the pairs 1.33 times that
    assert result.pooled.bar.se < asked.asked.error
    outlook = with_target(result, asked, 1).outlook
    assert not outlook.met
    assert outlook.error == pytest.approx(pairs / 1.2)
    assert sum(outlook.evaluations.values()) > 0


def test_per_what_is_the_share_of_the_whole():
    result = replace(result_of(40), formula_units=5)
    whole = with_target(result, Target(Asked(0.01, "cell")), 3).outlook.error
    for per, share in (("formula-unit", 5), ("site", 3)):
        found = with_target(result, Target(Asked(0.01, per)), 3).outlook
        assert found.error == pytest.approx(whole / share)
    with pytest.raises(InputError, match="per site: no atom of this run changes"):
        with_target(result, Target(Asked(0.01, "site")), 0)


def test_a_vacancy_says_what_each_stage_still_takes(tmp_path):
    """Four pairs in each: six more of 220 evaluations, before anything is decided."""
    common = plan.Common(model="demo-fe", **COMMON)
    workflow = plan.prepare_vacancy(iron(2), [5], tmp_path / "w", common)
    finish(workflow, VACANCY)
    seen = (Seen("G_v", 1.0, 0.009, 0.009),)
    look = Look(Asked(0.002, "site"), 5000, seen, {}, False, seconds_per_evaluation=0.5)
    target.write(workflow.root, Target(Asked(0.002, "site"), (look,)))
    found = analyze_workflow(workflow.root)
    assert found.outlook.evaluations == dict.fromkeys(VACANCY, 1320)
    assert "2 meV per site after about 33 min more" in found.outlook.line
    assert "11 min in 300K/08-alchemical" in found.outlook.line
    assert found.outlook.line in workflow_summary(found)
    target.write(workflow.root, Target(Asked(0.002, "formula-unit")))
    assert analyze_workflow(workflow.root).outlook.total.startswith("G_v")
    for name in ("07-frenkel-ladd-defect", "08-alchemical"):  # only G of the perfect crystal is
        (workflow.root / "300K" / name / manifest.DONE).unlink()
    found = analyze_workflow(workflow.root)
    assert [row.quantity for row in found.rows] == ["G"]
    assert found.outlook is None


def test_nothing_is_reached_while_a_total_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "FEWEST", 4)  # pairs of results that were never run
    common = plan.Common(model="demo-fe", **COMMON | {"temperatures_K": (300.0, 400.0)})
    workflow = plan.prepare_crystal(iron(2), tmp_path / "w", common)
    stages = [s.name for s in workflow.stages if s.does == "free energy"]
    finish(workflow, dict.fromkeys(stages, (-430.0, 0.006)))
    asked = Asked(1.0, "cell")
    target.write(workflow.root, Target(asked))
    assert "is reached" in analyze_workflow(workflow.root).outlook.line
    assert len(Stages(workflow.root).state(asked).totals) == 2
    result = workflow.root / stages[1] / "result.json"
    result.write_text(result.read_text().replace("alchemdriver-result/", "alchemdriver-result/0"))
    found = analyze_workflow(workflow.root).outlook
    assert not found.met
    assert "is reached" not in found.line
    assert "totals are missing" in found.line
    with pytest.raises(RunError, match=r"result\.json"):
        Stages(workflow.root).state(asked)


def test_all_errors_of_a_workflow_are_no_less_than_single_pairs_say(tmp_path, monkeypatch):
    """Not those of the totals alone: G of the perfect crystal, and how well the routes agree."""
    monkeypatch.setattr(stopping, "FEWEST", 4)
    common = plan.Common(model="demo-fe", **COMMON)
    workflow = plan.prepare_vacancy(iron(2), [5], tmp_path / "w", common)
    small = 1e-4  # eV, far below what the pairs of these stages scatter by
    finish(workflow, {name: (value, small) for name, (value, _) in VACANCY.items()})
    asked = Target(Asked(1.0, "cell"))
    target.write(workflow.root, asked)
    given = analyze_workflow(workflow.root)
    target.write(workflow.root, replace(asked, lengthened=LENGTHENED))
    found = analyze_workflow(workflow.root)
    assert found.outlook.met
    pair = {n: s.source.pair_sigma for n, s in found.stages.items()}
    g = next(r for r in found.rows if r.quantity == "G")
    assert g.se == pytest.approx(1.2 * pair["300K/04-frenkel-ladd"] * student(ONE_SIGMA, 3))
    (was,), (now,) = given.agreements, found.agreements
    assert was.se < 3 * small
    assert now.se > 1.2 * np.linalg.norm(list(pair.values()))
    assert now.half95 > now.se


def test_one_defect_is_no_number_of_formula_units(tmp_path):
    """As for a single run of it; ε is of the whole then."""
    common = plan.Common(model="demo", **COMMON)
    mu = {"I": -1.5}
    workflow = plan.prepare_vacancy(perovskite(2), [2], tmp_path / "w", common, mu)
    finish(workflow, VACANCY)
    rows, asked = analyze_workflow(workflow.root).rows, Asked(0.002, "formula-unit")
    errors = {w.error for w in wanted_of_rows(workflow, rows, asked).values()}
    assert errors == {0.002}


def test_errors_per_something_else_are_no_history_of_this_one():
    result = result_of(40)
    looks = tuple(
        Look(Asked(0.01, per), n, (Seen("F", 1.0, error, error),), {}, False)
        for n, (per, error) in enumerate([("cell", 0.05), ("atom", 0.01), ("cell", 0.04)])
    )
    found = with_target(result, Target(Asked(0.01, "cell"), looks), 1).outlook
    assert found.history == ((0, 0.05), (2, 0.04))


def test_a_total_whose_term_has_no_error_has_not_the_error_that_was_asked_for():
    result = result_of(40)
    totals = tuple(replace(t, se=None, ci95=None) for t in result.totals)
    found = with_target(replace(result, totals=totals), Target(Asked(1.0, "cell")), 1).outlook
    assert not found.met
    assert found.line == "no error yet, one of its terms has none; asked for: 1e+03 meV per cell"


def test_a_budget_is_compared_with_all_stages_of_a_workflow_that_has_not_begun(tmp_path):
    """NPT and NVT of 5000 steps; two replicas of two pairs of 2 × (1000 + 4000) steps."""
    common = plan.Common(model="demo-fe", **COMMON)
    workflow = plan.prepare_crystal(iron(1), tmp_path / "w", common)
    assert Stages(workflow.root).planned() == 2 * 5001 + 2 * 20001
    resources = Resources()
    with pytest.raises(InputError, match="take 50004 evaluations, more than 1000"):
        pursue(workflow.root, Asked(0.002, "cell"), Budget(1000), resources, None, None)
    assert not (workflow.root / target.FILE).exists()


def test_a_run_whose_term_has_no_error_ends_with_that(tmp_path, monkeypatch):
    """Not with an error of the works alone: more cycles give the term none."""
    rr.oscillator_run(tmp_path / "run", schedule="linear", equilibrate=5, switch=9, cycles=3)
    result = result_of(40)
    monkeypatch.setattr(analysis, "analyze", lambda inputs: result)
    runs, asked = Runs(tmp_path / "run"), Asked(1.0, "cell")
    assert runs.state(asked).errors
    why = "not estimated: a point of the mass leg has no error"
    totals = tuple(replace(t, se=None, se_kind=why) for t in result.totals)
    result = replace(result, totals=totals)
    with pytest.raises(RunError, match=why):
        runs.state(asked)


def test_per_site_of_what_changes_as_a_whole_is_refused_before_anything_runs(tmp_path):
    common = plan.Common(model="demo", **COMMON)
    full = plan.prepare_transmute({"cubic": perovskite(1)}, "Pb->Sn", tmp_path / "w", common)
    with pytest.raises(InputError, match="per site: cubic changes as a whole"):
        Stages(full.root).check(Asked(0.002, "site"))
    Stages(full.root).check(Asked(0.002, "atom"))
    some = replace(full, settings=replace(full.settings, substituted={"cubic": 1}))
    manifest.write(some)
    Stages(full.root).check(Asked(0.002, "site"))
