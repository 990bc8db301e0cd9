"""Where a server listens."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .run_input import RunInput


def address_of(
    run: RunInput,
    *,
    host: str | None = None,
    port: int | None = None,
    unix: str | None = None,
    prefix: str | None = None,
) -> Address:
    """Where the input's server listens, with the command line's overrides."""
    shared = run.socket.mode == "shm"
    if unix is not None:
        return Address.unix(unix, prefix or run.socket.prefix, shared_memory=shared)
    if host is not None or port is not None or run.socket.mode == "inet":
        host = run.socket.address if host is None else host
        return Address.tcp(host, run.socket.port if port is None else port)
    return Address.unix(run.socket.address, prefix or run.socket.prefix, shared_memory=shared)


_MAX_UNIX_PATH = 107  # bytes, a limit of the kernel


@dataclass(frozen=True)
class Address:
    """Where i-PI listens: a unix socket file, or host and port.  Use `unix` or `tcp`."""

    path: str | None = None
    host: str | None = None
    port: int | None = None
    shared_memory: bool = False  # unix only: numbers do not travel through the socket

    @classmethod
    def unix(cls, name: str, prefix: str = "/tmp/ipi_", *, shared_memory: bool = False) -> Address:
        """The ``<address>`` of a unix or shm ffsocket, with i-PI's prefix; or a full path."""
        if not name:
            raise InputError("expected the name of a unix socket, got an empty one")
        path = name if name.startswith("/") else prefix + name
        if len(path.encode()) > _MAX_UNIX_PATH:
            raise InputError(f"expected a socket path of at most {_MAX_UNIX_PATH} bytes: {path}")
        return cls(path=path, shared_memory=shared_memory)

    @classmethod
    def tcp(cls, host: str, port: int) -> Address:
        if not host:
            raise InputError("expected a host name, got an empty one")
        if not 0 < port < 65536:
            raise InputError(f"expected a port from 1 to 65535, got {port}")
        return cls(host=host, port=port)

    def __str__(self) -> str:
        return self.path if self.path is not None else f"{self.host}:{self.port}"
