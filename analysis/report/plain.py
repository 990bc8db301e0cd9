"""Text for terminals and tables of numbers, whatever stands in names and files.

Names of folders and words from JSON may hold rich's markup, emoji codes, escape sequences of a
terminal, or what a spreadsheet takes for a formula.  All that a report prints passes here.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """*text* with control characters, line ends apart, as ``\\\\x1b``."""
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def drawn(draw: Callable[[Console], object], width: int) -> str:
    """What *draw* prints on a console of *width* columns, as it reads; no spaces at line ends."""
    from rich.console import Console

    buffer = StringIO()
    console = Console(
        file=buffer, width=width, force_terminal=False, highlight=False, markup=False, emoji=False
    )
    draw(console)
    lines = printable(buffer.getvalue()).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


def cell(value: Any) -> Any:
    """*value* for CSV: text that a spreadsheet would compute begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
