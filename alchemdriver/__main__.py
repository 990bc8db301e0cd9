"""``python -m alchemdriver`` is the ``alchemdriver`` command."""

from .cli.main import main

main()
