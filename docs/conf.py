"""The site: `make docs`.  Tutorials are executed, command line and API pages are written anew."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tools"))

import doc_blocks  # noqa: E402
import doc_pages  # noqa: E402

import alchemdriver  # noqa: E402

project = "alchemdriver"
author = copyright = "The alchemdriver developers"
version = release = alchemdriver.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["images/*.md"]
suppress_warnings = ["myst.header"]  # pages of the reference may begin below a first title
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"alchemdriver {version}"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0072b2"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}
html_show_sphinx = False

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)\)")


def _sources() -> str:
    """Fingerprint of everything that could change what a tutorial prints."""
    found = hashlib.sha256()
    for room in ("alchemdriver", "analysis", "ipi_inputs"):
        for path in sorted((ROOT / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(path.read_bytes())
    return found.hexdigest()


def _executed(page: Path) -> str:
    """The page with its output; executed unless it and the program are as they were."""
    key = hashlib.sha256((page.read_text() + _sources()).encode()).hexdigest()[:16]
    kept = ROOT / "build" / "docs" / "executed" / f"{page.stem}-{key}.md"
    if not kept.is_file():
        folder = ROOT / "build" / "docs" / "run" / f"{page.stem}-{key}"
        print(f"executing {page.relative_to(ROOT)} in {folder}", flush=True)
        text = doc_blocks.execute(page, folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
    return kept.read_text()


def _read(app, docname: str, source: list[str]) -> None:
    page = HERE / f"{docname}.md"
    text = _executed(page) if page.parent == doc_blocks.TUTORIALS else source[0]

    def plain(link: re.Match[str]) -> str:
        """A link to a file of the repository that is no page: its name."""
        target = (page.parent / link[2]).resolve()
        if target.is_relative_to(HERE) or not target.exists():
            return link[0]  # a page, or a broken link, of which Sphinx warns
        path = target.relative_to(ROOT).as_posix()
        return link[1] if path in link[1] else f"{link[1]} (`{path}`)"

    source[0] = _OUTSIDE.sub(plain, text)


def _docstring(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = doc_pages.restructured(lines)


def setup(app) -> None:
    doc_pages.write(HERE / "generated")
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring)
