"""Numbers that travel through memory instead of the socket: i-PI's ``mode='shm'``, client side.

i-PI 3.3 owns six segments per client and names them with the first structure; the socket then
carries only messages and extras.  Atomic units, B structures of N atoms::

    pos (B, 3N)   h, ih (B, 3, 3)   pot (B,)   force (B, 3N)   vir (B, 3, 3)

Works where client and server run on one machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import resource_tracker, shared_memory

import numpy as np

from ..errors import WireError
from .wire import PosData, Reply

__all__ = ["KINDS", "Segments"]

KINDS = ("pos", "h", "ih", "pot", "force", "vir")  # in the order of their names on the wire


class Segments:
    """The six segments of one connection, attached.  Raises WireError if one is missing or
    smaller than *batch* structures of *n_atoms* need."""

    def __init__(self, names: Sequence[str], batch: int, n_atoms: int):
        self.names, self.batch = tuple(names), batch
        self._memory: list[shared_memory.SharedMemory] = []
        self._view: dict[str, np.ndarray] = {}
        shapes = {
            "pos": (batch, n_atoms, 3),
            "h": (batch, 3, 3),
            "ih": (batch, 3, 3),
            "pot": (batch,),
            "force": (batch, n_atoms, 3),
            "vir": (batch, 3, 3),
        }
        try:
            for kind, name in zip(KINDS, self.names, strict=True):
                self._view[kind] = self._attach(name, shapes[kind])
        except BaseException:
            self.close()
            raise

    def _attach(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            memory = shared_memory.SharedMemory(name=name)
        except (OSError, ValueError):
            raise WireError(
                f"expected the shared memory '{name}' of i-PI: mode='shm' needs client and server "
                "on one machine, with one /dev/shm"
            ) from None
        # It is i-PI's to remove.  Python before 3.13 would do so when this process ends.
        registered = memory._name  # type: ignore[attr-defined]  # as the tracker knows it
        resource_tracker.unregister(registered, "shared_memory")
        self._memory.append(memory)
        needed = int(np.prod(shape)) * 8
        if memory.size < needed:
            raise WireError(
                f"expected {needed} bytes of shared memory in '{name}', got {memory.size}"
            )
        return np.ndarray(shape, dtype=np.float64, buffer=memory.buf)

    def read(self) -> PosData:
        """A copy of the structures as they stand there now."""
        cells = self._view["h"].transpose(0, 2, 1).copy()  # i-PI's h has the vectors as columns
        return PosData(positions=self._view["pos"].copy(), cells=cells)

    def write(self, replies: Sequence[Reply]) -> None:
        """Put the numbers of one reply per structure where i-PI reads them."""
        for b, reply in enumerate(replies):
            self._view["pot"][b] = reply.energy
            self._view["force"][b] = reply.forces
            self._view["vir"][b] = reply.virial

    def close(self) -> None:
        self._view.clear()
        for memory in self._memory:
            memory.close()
        self._memory.clear()
