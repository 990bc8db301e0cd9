"""HTML from records: one place where text becomes markup, so that nothing is ever left unescaped.

Text from files (JSON, names of folders, labels of phases) may hold anything.  Here it enters a page
as :class:`Markup` only by :func:`text`; whoever builds pages joins Markup and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from .grouped import grouped

if TYPE_CHECKING:
    from ..result import Result


class Markup(str):
    """HTML.  Made here alone: from text by escaping it, from Markup by joining it."""

    __slots__ = ()


def text(value: object) -> Markup:
    """*value* as it reads, whatever stands in it."""
    return value if isinstance(value, Markup) else Markup(escape(str(value), quote=True))


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(text(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """``<name attributes>content</name>``; a trailing _ of an attribute is dropped (``class_``)."""
    given = "".join(f' {key.rstrip("_")}="{text(x)}"' for key, x in attributes.items())
    inner = joined(content)
    return Markup(f"<{name}{given}>{inner}</{name}>")


def table(head: Sequence[object], rows: Sequence[Sequence[object]], numeric: set[int]) -> Markup:
    """Columns in *numeric* are set to the right."""
    return tag(
        "table",
        tag("tr", *(tag("th", h) for h in head)),
        *(
            tag(
                "tr",
                *(
                    tag("td", x, class_="n") if k in numeric else tag("td", x)
                    for k, x in enumerate(row)
                ),
            )
            for row in rows
        ),
    )


def result_html(result: Result) -> Markup:
    """Totals, terms and warnings of a result, for a notebook."""
    from .text import with_error

    c = result.conditions
    where = f"{c.temperature:g} K" + ("" if c.pressure is None else f", {c.pressure:g} bar")
    totals = [
        [
            t.method,
            with_error(t.value, t.se),
            with_error(t.per_formula_unit, t.per_formula_unit_se),
            t.se_kind,
        ]
        for t in result.totals
    ]
    terms = [
        [t.name, "missing" if t.value is None else f"{t.value:+.6f} {t.unit}", t.source]
        for t in result.terms
    ]
    labels = f" [{', '.join(result.labels)}]" if result.labels else ""
    parts = [
        tag("p", tag("b", result.quantity), labels),
        tag("p", f"{c.alchemy}, {c.formula}, {c.ensemble}, {where}"),
    ]
    if totals:
        head = ["method", "whole cell", "per formula unit", "error is"]
        parts.append(table(head, totals, {1, 2}))
    if terms:
        parts.append(table(["term", "value", "source"], terms, {1}))
    if result.warnings:
        parts.append(tag("ul", *(tag("li", w) for w in grouped(result.warnings))))
    return tag("div", *parts)
