"""i-PI's objects under their own names.  It has no types: to a checker, each may be anything."""

from __future__ import annotations

from typing import Any, TypeAlias

Simulation: TypeAlias = Any
System: TypeAlias = Any
Motion: TypeAlias = Any
Thermostat: TypeAlias = Any
Integrator: TypeAlias = Any
Forcefield: TypeAlias = Any
Output: TypeAlias = Any  # a property, trajectory or checkpoint output
Driver: TypeAlias = Any  # the socket of one client
Interface: TypeAlias = Any  # the socket that clients connect to, and its queue
Request: TypeAlias = "dict[str, Any]"  # a structure to compute: positions, cell, parameters, state
Reply: TypeAlias = "list[Any]"  # energy, forces (3N,), virial (3, 3), extras: atomic units
