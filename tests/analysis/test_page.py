"""The page of a run: one file, the number first, everything on it, nothing unescaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.analysis_files import run_with_works, switching_input

from alchemdriver import analysis


@pytest.fixture
def result(tmp_path):
    rng = np.random.default_rng(1)
    path = switching_input(tmp_path / "r", 2, 5, 12)
    run_with_works(path, rng.normal(0.25, 0.02, 12), rng.normal(-0.2, 0.02, 12))
    return analysis.analyze(path)


class Seen(HTMLParser):
    """Text in order, links to elsewhere, and tags that are open."""

    def __init__(self, page: str):
        super().__init__()
        self.said: list[str] = []
        self.outside: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.outside += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def test_it_says_all_with_the_number_first(result):
    plots = analysis.save_plots(result, result.folder)
    page = analysis.write_page(result, plots).read_text()
    seen = Seen(page)
    said = " ".join(seen.said)
    assert not seen.open
    assert not seen.outside  # nothing is fetched: one file to send on
    best = result.total("BAR")
    number = f"{best.value:.3f}"
    assert said.index(number) < said.index("Totals")
    for piece in (
        "least variance (eq. 11)",
        "no bias (BAR)",
        "mass term",
        "eq. 22",
        "dissipation",
        "first law",
        result.replicas[0].provenance.input_sha256[:16],
        "alchemdriver analyze",
        *result.labels,
        *(w[:40] for w in result.warnings),
    ):
        assert piece in said, piece
    pictures = re.findall(r'<img alt="([^"]*)"', page)
    assert len(pictures) == len(plots) + 1  # and the structure
    assert "start of the first run" in pictures[-1]


def test_text_from_files_stays_text(result):
    bad = "<script>alert(1)</script>"
    page = analysis.write_page(replace(result, warnings=(bad,), quantity=bad), []).read_text()
    assert bad not in page
    assert page.count("&lt;script&gt;") == 3  # title, heading, warning


def test_without_a_total_it_says_so(result):
    terms = tuple(replace(t, value=None) for t in result.terms)
    totals = tuple(replace(t, value=None, se=None) for t in result.totals)
    page = analysis.write_page(replace(result, totals=totals, terms=terms), []).read_text()
    assert "no total: a term is missing" in page
    assert "nan" not in " ".join(Seen(page).said)
