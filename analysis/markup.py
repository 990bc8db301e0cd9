"""HTML from records: one place where text becomes markup, so that nothing is ever left unescaped.

Text from files (JSON, names of folders, labels of phases) may hold anything.  Here it enters a page
as :class:`Markup` only by :func:`text`; whoever builds pages joins Markup and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


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
