"""``<forces>`` of an input: our forcefield among them, and what λ needs of it."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .parameters import Parameters
from .xmltree import child, many, numbers, text_of


def check_forces(ff: dict[str, Any], system: dict[str, Any], parameters: Parameters) -> None:
    """That the alchemical forcefield *ff* acts once, and others only where λ is not theirs.

    Raises InputError.  Forces beside ours have no λ: they add to H without adding to ∂H/∂λ.
    """
    name = ff.get("@name")
    forces = many(child(system, "forces", "force"))
    ours = [f for f in forces if isinstance(f, dict) and f.get("@forcefield") == name]
    if len(ours) != 1:
        raise InputError(
            f"expected one <force forcefield='{name}'> in <forces>, found {len(ours)} among "
            f"{len(forces)}"
        )
    for force in forces:
        weights = numbers(force.get("mts_weights")) if isinstance(force, dict) else []
        if weights and abs(sum(weights) - 1.0) > 1e-9:
            raise InputError(
                f"<mts_weights> {weights} must sum to 1: i-PI scales forces by their sum, and the "
                "energy not"
            )
    alone = {
        "springs": "'einstein->model' changes the whole of H",
        "scale": "'model->scaled' changes the whole of H",
        "tether": "another force would still hold what goes to void",
    }
    for key, why in alone.items():
        if len(forces) > 1 and getattr(parameters, key) is not None:
            raise InputError(f"{len(forces)} <force>: {why}, so '{name}' must be the only one")


def timeout_of(ff: dict[str, Any]) -> float:
    """``<timeout>`` of a forcefield, s; 0, which is i-PI's own, if it is no number."""
    try:
        return float(text_of(ff.get("timeout"), "0"))
    except ValueError:
        return 0.0


def check_forces_of_a_switch(
    ff: dict[str, Any], system: dict[str, Any], dynamics: dict[str, Any] | None
) -> None:
    """What a schedule needs from the socket, the force components and the time stepping."""
    if not timeout_of(ff) > 0:
        raise InputError(
            "<timeout> of the <ffsocket> must be positive, or a hung client hangs the run forever: "
            "give seconds, e.g. <timeout>600</timeout>"
        )
    name = ff.get("@name")
    forces = many(child(system, "forces", "force"))
    (ours,) = [f for f in forces if isinstance(f, dict) and f.get("@forcefield") == name]
    if "dHdlambda" not in text_of(ours.get("interpolate_extras")):
        raise InputError(
            f"a schedule needs <force forcefield='{name}'> with <interpolate_extras>[dHdlambda]"
            "</interpolate_extras>, or weights and contraction miss the work"
        )
    nmts = numbers(child(dynamics, "nmts"))
    weights = numbers(ours.get("mts_weights"))
    outermost = nmts[:1] == [1.0] and bool(weights) and not any(weights[1:])
    if any(n > 1 for n in nmts) and not outermost:
        raise InputError(
            f"multiple time steps (<nmts>) under a schedule: forcefield '{name}' must act in the "
            "outermost one alone (<nmts>[1, 4]</nmts> with <mts_weights>[1, 0]</mts_weights>), or "
            "lambda jumps inside the outer step, where eq. 9 does not see it"
        )
