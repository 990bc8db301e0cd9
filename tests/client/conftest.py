"""A place for sockets."""

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def where():
    """A short directory: unix socket paths have at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="ad_", dir="/tmp"))
    yield path
    shutil.rmtree(path)
