"""How short a stage may be: known when it is prepared, and checked again when it is edited."""

from __future__ import annotations

from ..contract.settings import Common
from ..errors import InputError

FEWEST_FRAMES = 20  # after equilibration, of which at least a tenth is left out


def fewest_steps(stride: int) -> int:
    """Steps of a run that is averaged over, with positions every *stride* steps."""
    frames = FEWEST_FRAMES
    while frames - frames // 10 < FEWEST_FRAMES:
        frames += 1
    return (frames - 1) * stride


def too_short(does: str, stride: int, total_steps: int, hold: int) -> str | None:
    """Why a stage that *does* that cannot give it; None if it can.

    stride: steps between printed positions.  hold: steps of a hold; 0 where there is none.
    """
    if does == "free energy":
        if hold > stride:
            return None
        return (
            f"holds of {hold} steps, but positions only every {stride}: whether the crystal keeps "
            f"its structure could not be seen; hold for {stride + 1} steps or more"
        )
    if total_steps >= fewest_steps(stride):
        return None
    return (
        f"{total_steps} steps print {total_steps // stride + 1} frames of positions, at least "
        f"{FEWEST_FRAMES} after equilibration are needed for averages: give it "
        f"{fewest_steps(stride)} steps or more"
    )


def check_errors(common: Common) -> None:
    """Raises InputError for switches too few for an error, without which nothing is added up."""
    if common.replicas * common.cycles < 2:
        raise InputError(
            "one replica with one pair of switches has no error, and free energies are added up "
            "with theirs: --replicas 2 or --cycles 2"
        )
