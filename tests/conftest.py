"""Shared settings: one torch thread, and the table of measured errors at the end of a session."""

from __future__ import annotations

import os

# Before torch is imported anywhere, and inherited by the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

_TABLE: dict[str, dict[str, float]] = {}


@pytest.fixture(scope="session")
def error_table():
    """Rows {name: {column: relative error}}, printed when the session ends."""
    return _TABLE


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes: hand the rows over
        session.config.workeroutput["errors"] = {
            name: {column: float(error) for column, error in row.items()}  # NumPy's cannot travel
            for name, row in _TABLE.items()
        }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    _TABLE.update(getattr(node, "workeroutput", {}).get("errors", {}))


def pytest_terminal_summary(terminalreporter):
    if not _TABLE:
        return
    columns = list(dict.fromkeys(c for row in _TABLE.values() for c in row))
    width = max(len(name) for name in _TABLE)
    write = terminalreporter.write_line
    terminalreporter.section("worst relative errors")
    write(" " * width + "".join(f"  {c:>11s}" for c in columns))
    for name, row in _TABLE.items():
        cells = (f"{row[c]:11.1e}" if c in row else f"{'':11s}" for c in columns)
        write(f"{name:{width}s}" + "".join(f"  {cell}" for cell in cells))
