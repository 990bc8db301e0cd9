"""The exceptions a user can meet.

    AlchemdriverError
    ├── InputError       an input file, key or argument is wrong
    ├── ModelError       a model is missing, unsupported or fails its exact limits
    ├── WireError        the peer on the socket said something it must not
    ├── RunError         a run cannot start, continue or be trusted
    │   └── Busy         somebody else runs it
    ├── OutOfTime        the wall time that the user gave is over; all can go on later
    └── AnalysisError    output files do not contain what an estimate needs

Messages are one line: what was expected, what came, what to do.  The command line prints that line
and exits with status 2; nothing else of these classes reaches a user.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class AlchemdriverError(Exception):
    """Base of every error that alchemdriver raises on purpose."""


class InputError(AlchemdriverError):
    pass


class ModelError(AlchemdriverError):
    pass


class WireError(AlchemdriverError):
    pass


class RunError(AlchemdriverError):
    pass


class Busy(RunError):
    pass


class OutOfTime(AlchemdriverError):
    pass


class AnalysisError(AlchemdriverError):
    pass


def did_you_mean(word: str, known: Iterable[object]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known word, or an empty string."""
    close = get_close_matches(str(word), [str(k) for k in known], n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
