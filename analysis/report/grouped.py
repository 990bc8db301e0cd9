"""Many lines of one kind as one line: what a report of hundreds of runs prints."""

from __future__ import annotations

import re
from collections.abc import Iterable

ALONE = 3  # up to so many lines of one kind are printed as they are
_NAMED = re.compile(r"^([^\s:]+): (.*)$", re.DOTALL)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_WORD = re.compile(r"\b(?:forward|backward)\b")


def grouped(lines: Iterable[str]) -> list[str]:
    """*lines* in their order; what differs in a name before ': ' and in numbers stands together.

    A group of more than ALONE is one line: how many, the first and the last name, and the text of
    the first.  Nothing is lost: result.json has every line.
    """
    groups: dict[tuple[bool, str], list[tuple[str, str]]] = {}
    for line in lines:
        match = _NAMED.match(line)
        name, text = (match[1], match[2]) if match else ("", line)
        kind = _WORD.sub("", _NUMBER.sub("#", text))
        groups.setdefault((match is not None, kind), []).append((name, text))
    found = []
    for (named, _), members in groups.items():
        if named and len(members) > ALONE:
            first, last = members[0][0], members[-1][0]
            found.append(f"{first} … {last} ({len(members)} alike): {members[0][1]}")
        else:
            found += [f"{name}: {text}" if named else text for name, text in members]
    return found
