"""The secret that server and clients of one run share, and what they prove with it.

It is a line of text, in :data:`VARIABLE` or in the file :data:`FILE` beside the input, which the
server writes where there is none and which nobody but its owner may read.  On the wire, before and
around i-PI's own messages::

    server  CHALLENGE  nonce                          client  PROOF  nonce, proof
    server  i-PI's messages from STATUS on            client  its answers; each FORCEREADY is
                                                              followed by the MAC of the reply
    server  REFUSED, where the proof is wrong

All are HMAC-SHA256 (RFC 2104).  With S the secret and n both nonces, which are fresh for each
connection: proof = HMAC(S, "proof" n), session key K = HMAC(S, "session" n), and the MAC of reply
number k is HMAC(K, k, SHA-256 of all that the server has said so far, reply).  What the server has
said holds λ, cell and positions: a reply is good for its request, its connection and its turn only,
even for somebody who sits on the line.  Nothing is encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import struct
from pathlib import Path

from ..errors import InputError
from .files import written_aside

__all__ = [
    "CHALLENGE",
    "FILE",
    "MAC",
    "NONCE",
    "PROOF",
    "REFUSED",
    "VARIABLE",
    "Session",
    "find_secret",
    "make_secret",
]

FILE = "socket.secret"
VARIABLE = "ALCHEMDRIVER_SECRET"
LEAST = 32  # characters: 128 bits, if they are hexadecimal digits
NONCE = MAC = hashlib.sha256().digest_size  # bytes

# message names of 12 bytes, as i-PI's
CHALLENGE, PROOF, REFUSED = (name.ljust(12) for name in (b"CHALLENGE", b"PROOF", b"REFUSED"))


class Session:
    """One connection whose client knows the secret; both ends hold one and feed it alike."""

    def __init__(self, secret: bytes, server_nonce: bytes, client_nonce: bytes):
        both = server_nonce + client_nonce
        self.proof = _mac(secret, b"proof" + both)
        self._key = _mac(secret, b"session" + both)
        self._said = hashlib.sha256()
        self._replies = 0

    def said(self, data: bytes) -> None:
        """What the server says, in order, from the first message after the proof on."""
        self._said.update(data)

    def mac(self, reply: bytes) -> bytes:
        """Of the next reply; each call counts as one."""
        number = struct.pack(">Q", self._replies)
        self._replies += 1
        return _mac(self._key, number + self._said.digest() + reply)


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def find_secret(folder: Path, file: Path | None = None) -> bytes:
    """The secret of the run in *folder*: from *file* if given, else from the environment, else from
    the file beside the input.  InputError if there is none, or others may read it."""
    if file is None and VARIABLE in os.environ:
        return _checked(os.environ[VARIABLE], f"the environment's {VARIABLE}")
    path = folder / FILE if file is None else file
    try:
        with open(path, encoding="ascii") as f:
            mode = stat.S_IMODE(os.fstat(f.fileno()).st_mode)
            text = f.read(4096)
    except FileNotFoundError:
        raise InputError(
            f"no secret at {path}: copy '{FILE}' from the server's run folder, give --secret FILE, "
            f"or set {VARIABLE}"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected a secret of ASCII characters") from None
    if mode & 0o077:
        raise InputError(f"{path}: others may read it (mode {mode:o}): chmod 600 {path}")
    return _checked(text, str(path))


def make_secret(folder: Path) -> bytes:
    """The secret of a server in *folder*; written to its file where there is none yet."""
    path = folder / FILE
    if VARIABLE in os.environ or path.exists():
        return find_secret(folder)
    try:
        with written_aside(path) as aside:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as f:
                f.write(secrets.token_hex(32) + "\n")
    except OSError as err:
        raise InputError(
            f"{path}: the run's secret cannot be written ({err.strerror}): set {VARIABLE}"
        ) from None
    return find_secret(folder)


def _checked(text: str, where: str) -> bytes:
    secret = text.strip()
    if len(secret) < LEAST:
        raise InputError(
            f"{where}: expected a secret of at least {LEAST} characters, got {len(secret)}"
        )
    return secret.encode()
