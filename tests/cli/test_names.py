"""Names are printed as they are, whatever a terminal library reads into them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from alchemdriver.cli.show import Display
from alchemdriver.execute.progress import Progress

NAMES = ["[red]", "a[/]b", "[link=x]y", ":fire:", "a@b", "run 1"]


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_progress_shows_names_as_they_are(name, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    display = Display(console)
    with display.bars:
        display.report(name, Progress(1, 2, 0.5, "fixed", 300.0), resumed=False)
        display.say(f"{name}: something")
        if display.live:
            display.bars.refresh()
    assert f"{name}: something" in out.getvalue()
    assert out.getvalue().count(name) >= 2
