"""``python -m alchemdriver`` is the ``alchemdriver`` command."""

from .cli import main

main()
