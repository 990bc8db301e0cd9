"""Soft spheres for alchemdriver: what there is.  The model itself is in :mod:`soft_spheres.model`,
which is imported only when one is opened."""

from pathlib import Path

from alchemdriver.contract.shelf import ModelCard, ModelFamily

_FILE = Path(__file__).with_name("noble.json")


def _cards():
    return [
        ModelCard(
            name="soft-spheres-noble",
            elements=("Ar", "Kr"),
            licence="MIT",
            size=_FILE.stat().st_size,
            source="tests of alchemdriver",
            good_for="a test",
            file=_FILE,
        )
    ]


FAMILY = ModelFamily(
    "soft-spheres", "soft_spheres.model:open_file", suffixes=(".json",), cards=_cards
)
