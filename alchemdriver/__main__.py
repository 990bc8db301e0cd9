"""The ``alchemdriver`` command until its modules are loaded; ``python -m alchemdriver``."""

from __future__ import annotations

import os
import signal
import sys


def start() -> None:
    """Entry point.  Nothing here may take time: Ctrl-C would end it with a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # silent, until `main` has one of its own
    open_streams()
    have_a_home()
    from .cli.main import main

    main()


def open_streams() -> None:
    """Whatever was closed (``>&-``) leads nowhere: a file opened later must not get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def have_a_home() -> None:
    """A user without HOME and without an entry in passwd (``docker run -u 12345``): some packages
    look for their settings at home when they are imported, and fail where there is none."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = os.devnull  # nothing is below it, and nobody can put anything there


if __name__ == "__main__":
    start()
