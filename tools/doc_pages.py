"""Pages that are made from the program itself (the command line, the Python API), and notebooks
that are made from tutorials."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doc_blocks
import typer

# Page → its first lines, and the modules whose public names stand on it.
API = {
    "calculator": (
        "From Python: energies",
        "An ASE calculator, models by name, lattice dynamics, the conformance suite.",
        ("alchemdriver.potential.calculator", "alchemdriver.shelf", "alchemdriver.potential.open",
         "alchemdriver.lattice_dynamics", "alchemdriver.testing", "alchemdriver.records"),
    ),
    "analysis": (
        "From Python: analysis",
        "Files into free energies, without torch and without i-PI. All of it can be imported from "
        "`alchemdriver.analysis`.",
        ("alchemdriver.analysis.run", "alchemdriver.analysis.report.text",
         "alchemdriver.analysis.report.export", "alchemdriver.analysis.files.readers",
         "alchemdriver.analysis.estimators.work", "alchemdriver.analysis.estimators.switching",
         "alchemdriver.analysis.estimators.estimate", "alchemdriver.analysis.estimators.parts",
         "alchemdriver.analysis.estimators.series", "alchemdriver.analysis.compare.beads"),
    ),
    "formulas": (
        "From Python: closed forms",
        "One function for each equation; [theory](../theory.md) derives them.",
        ("alchemdriver.paths.formulas", "alchemdriver.analysis.corrections.formulas",
         "alchemdriver.analysis.corrections.finite_cell", "alchemdriver.contract.schedule",
         "alchemdriver.units"),
    ),
    "composition": (
        "From Python: composition",
        "Mixed crystals, their relaxation and the descent to a target.",
        ("alchemdriver.composition.mixture", "alchemdriver.composition.objectives",
         "alchemdriver.composition.optimize", "alchemdriver.composition.relaxation",
         "alchemdriver.composition.simplex"),
    ),
}  # fmt: skip


NOTEBOOKS = ("composition", "python")  # tutorials that can be had as notebooks, too


def write(folder: Path) -> None:
    """Write all generated files; those that are as they were keep their time."""
    folder.mkdir(exist_ok=True)
    files = {"cli.md": command_line()}
    files |= {f"{name}.md": _api(*page) for name, page in API.items()}
    files |= {f"{n}.ipynb": notebook(doc_blocks.TUTORIALS / f"{n}.md") for n in NOTEBOOKS}
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


# --- command line -------------------------------------------------------------------------------


def command_line() -> str:
    """Every command with its help, arguments and options, from the typer application."""
    from alchemdriver.cli.main import app

    root = typer.main.get_command(app)
    parts = [
        "# The command line\n\nWritten by the program itself. Bad input ends in one line and exit "
        "status 2; `run --wall-time` that is not done exits with 75."
    ]
    parts += _command(root, None, "alchemdriver")
    return "\n\n".join(parts) + "\n"


def _command(command: Any, parent: Any, path: str) -> Iterator[str]:
    context = command.context_class(command, info_name=path.split()[-1], parent=parent)
    if parent is not None:
        yield f"{'#' * (1 + len(path.split()) - 1)} {path}"
    yield _escaped(command.help or "")
    rows = [r for p in command.get_params(context) if (r := _row(p, context)) is not None]
    if rows:
        yield "\n".join(["| | | default |", "|---|---|---|", *rows])
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _command(found, context, f"{path} {name}")


def _row(parameter: Any, context: Any) -> str | None:
    if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
        return None
    option = parameter.param_type_name == "option"
    name = ", ".join(f"`{o}`" for o in parameter.opts) if option else f"`{parameter.name}`"
    default = parameter.get_default(context, call=False)
    shown = "" if default in (None, False) or callable(default) else f"`{default}`"
    if parameter.required:
        shown = "required"
    return f"| {name} | {_escaped(getattr(parameter, 'help', '') or '')} | {shown} |"


def _escaped(text: str) -> str:
    return re.sub(r"([|*_<>])", r"\\\1", " ".join(text.split()))


# --- notebooks ----------------------------------------------------------------------------------


def notebook(page: Path) -> str:
    """A tutorial as a Jupyter notebook (format 4.5), its blocks as cells, not yet executed."""
    text, cells, at = page.read_text(), [], 0

    def cell(kind: str, source: str) -> None:
        if source.strip():
            more = {"outputs": [], "execution_count": None} if kind == "code" else {}
            lines = source.strip("\n").splitlines(keepends=True)
            name = {"id": f"cell-{len(cells)}", "cell_type": kind, "metadata": {}}
            cells.append({**name, "source": lines, **more})

    for block in doc_blocks.blocks(page):
        if not block.executable or block.mark is not None:
            continue
        before, _, _ = text[at : block.end].rpartition(f"```{block.language}\n{block.text}")
        cell("markdown", re.sub(r"<!-- output.*? -->\n*", "", before))
        cell("code", block.text if block.language == "python" else f"%%bash\n{block.text}")
        at = block.end
    cell("markdown", re.sub(r"<!-- output.*? -->\n*", "", text[at:]))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


# --- API ----------------------------------------------------------------------------------------


def _api(title: str, about: str, modules: tuple[str, ...]) -> str:
    parts = [f"# {title}", about]
    for module in modules:
        parts += [
            f"## {module}",
            f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```",
        ]
    return "\n\n".join(parts) + "\n"


def restructured(lines: list[str]) -> list[str]:
    """A docstring of ours as reStructuredText: tables, equations and aligned lists stay."""
    found: list[str] = []
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            found += [*_paragraph(paragraph), ""]
            paragraph = []
    return found


def _paragraph(lines: list[str]) -> list[str]:
    aligned = any(re.search(r"\S {3,}\S", line) for line in lines)
    if lines[0].lstrip().startswith("|") or lines[0][:1].isspace() or aligned:
        return ["::", "", *(f"    {line}" for line in lines)]
    if all(re.match(r"[\w, =]+: |\s", line) for line in lines):  # name: what it is
        return [
            f"| {_text(line)}" if not line[:1].isspace() else f"  {_text(line)}" for line in lines
        ]
    return [_text(line.strip()) for line in lines]


def _text(line: str) -> str:
    """Escaped outside of ``code`` and *name*; roles are code."""
    parts = re.split(r"((?::\w+:)?`+[^`]+`+|(?<!\w)\*[\w ]+\*(?!\w))", line)
    plain = [re.sub(r"([\\*|_`])", r"\\\1", part) for part in parts[::2]]
    kept = [re.sub(r"(?::\w+:)?`+([^`]+)`+", r"``\1``", part) for part in parts[1::2]]
    return "".join(x for pair in zip(plain, [*kept, ""], strict=True) for x in pair)
