"""The socket loop: connect to i-PI, evaluate what it asks for, answer, until it says EXIT.

The client keeps no clock and no state.  Every request brings its parameters (λ among them) and its
structure, so clients may join, die and rejoin at any time.
"""

from __future__ import annotations

import errno
import logging
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..contract.address import Address
from ..contract.secret import NONCE, Session
from ..errors import InputError, RunError
from ..records import Evaluation
from ..units import ANGSTROM, ELECTRONVOLT, EV_PER_ANGSTROM
from . import wire
from .shared_memory import Segments

__all__ = ["Served", "connect", "serve"]

log = logging.getLogger(__name__)

PATIENCE = 60.0  # s without a server before giving up
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0  # s between attempts to connect
_FIRST_WORD = 60.0  # s that whoever took our connection may stay silent
_CHUNK = 1 << 18  # bytes per recv
# What a server that is absent, starting or dying looks like; nothing else is worth waiting for.
_ABSENT = {
    errno.ENOENT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.EAGAIN,  # backlog of a unix socket is full
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
}

Evaluate = Callable[[np.ndarray, np.ndarray, float], Evaluation]
EvaluateBatch = Callable[[np.ndarray, np.ndarray, float], list[Evaluation]]
LambdaOf = Callable[[dict[str, str]], float]
ExtrasOf = Callable[[float, Evaluation], Mapping[str, object]]
OnReply = Callable[[int, float, Evaluation], None]
SecretOf = Callable[[], bytes]


@dataclass(frozen=True)
class Served:
    """What a client did before it left."""

    requests: int  # structures answered
    reason: str  # "EXIT", or "EXIT during a request" (the run was stopped, or we were too slow)


def connect(address: Address, patience: float = PATIENCE) -> socket.socket:
    """Connect, waiting for a server that is not there yet with growing pauses.

    Raises RunError after ``patience`` seconds, at once if the address cannot ever work.
    """
    sock, reason = _wait_for(address, patience)
    if sock is None:
        stale = "" if address.path is None else ", and remove a socket file left by an old run"
        raise RunError(
            f"no i-PI server at {address} after {patience:g} s ({reason}): "
            f"start it first, check the address{stale}"
        )
    return sock


def _wait_for(address: Address, patience: float) -> tuple[socket.socket | None, str]:
    """The socket, or None and the reason of the last failure."""
    deadline = time.monotonic() + patience
    pause = _FIRST_PAUSE
    told = False
    while True:
        try:
            return _open(address, timeout=max(0.1, min(10.0, deadline - time.monotonic()))), ""
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                raise InputError(f"host {address.host!r} is not known: {error.strerror}") from None
            reason = str(error.strerror)
        except OSError as error:
            if not isinstance(error, TimeoutError) and error.errno not in _ABSENT:
                raise RunError(f"cannot connect to {address}: {error.strerror}") from None
            reason = error.strerror or "timed out"
        left = deadline - time.monotonic()
        if left <= 0:
            return None, reason.lower()
        if not told:
            log.info("waiting up to %.3g s for i-PI at %s (%s)", patience, address, reason.lower())
            told = True
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _open(address: Address, timeout: float) -> socket.socket:
    if address.path is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
    else:
        sock = socket.create_connection((address.host, address.port), timeout=timeout)
        # Small messages go back and forth: without this each waits for Nagle's timer.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Waiting for work has no time limit, so a host that vanished must be noticed by the kernel.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    sock.settimeout(None)
    return sock


def serve(
    address: Address,
    *,
    n_atoms: int,
    evaluate: Evaluate,
    lambda_of: LambdaOf,
    evaluate_batch: EvaluateBatch | None = None,
    extras_of: ExtrasOf | None = None,
    on_reply: OnReply | None = None,
    secret_of: SecretOf | None = None,
    patience: float = PATIENCE,
) -> Served:
    """Answer i-PI's requests until it sends EXIT.

    ``evaluate(positions Å, cell Å, λ)`` computes one structure.  ``lambda_of(parameters)`` checks
    the parameters of a request and returns its λ.  ``evaluate_batch(positions (B, N, 3) Å, cells
    (B, 3, 3) Å, λ)`` computes what i-PI sends as one batch; without it, ``evaluate`` is called B
    times.  ``extras_of(λ, evaluation)`` adds keys to the
    extras ``lambda`` and ``dHdlambda`` (atomic units, please).  ``on_reply(count, λ, evaluation)``
    is called after each answered structure.  ``secret_of()`` is called when the server asks for the
    run's secret, and returns it.

    A lost connection is taken up again; RunError if ``patience`` seconds pass without a server that
    has work.  Whatever ``evaluate`` or ``lambda_of`` raise closes the connection and is passed on.
    A result that is not finite does the same: i-PI would take NaN for a force.
    """
    worker = _Worker(n_atoms, evaluate, evaluate_batch, lambda_of, extras_of, on_reply)
    sock = connect(address, patience)
    deadline = None
    while True:
        log.info("connected to i-PI at %s", address)
        since, before = time.monotonic(), worker.requests
        with sock:
            try:
                reason = _converse(sock, worker, address, secret_of)
            except TimeoutError:
                raise RunError(
                    f"{address} took the connection and said nothing for {_FIRST_WORD:g} s: "
                    "is it i-PI that listens there?"
                ) from None
        if reason is not None:
            log.info("i-PI sent %s after %d requests", reason, worker.requests)
            return Served(worker.requests, reason)
        log.warning("lost i-PI at %s after %d requests", address, worker.requests)

        # A tunnel with no server behind it accepts and hangs up: such conversations do not move
        # the deadline, and the pause keeps us from spinning.
        now = time.monotonic()
        fruitful = worker.requests > before or now - since > _LONGEST_PAUSE
        if fruitful or deadline is None:
            deadline = now + patience
        if not fruitful:
            time.sleep(max(0.0, min(_LONGEST_PAUSE, deadline - now)))
        left = deadline - time.monotonic()
        again, why = _wait_for(address, left) if left > 0 else (None, "it hangs up at once")
        if again is None:
            raise RunError(
                f"server gone: nothing at {address} for {patience:g} s "
                f"after {worker.requests} requests ({why})"
            )
        sock = again


class _Worker:
    """From a POSDATA to the bytes of its reply: units, checks, counting."""

    def __init__(
        self,
        n_atoms: int,
        evaluate: Evaluate,
        evaluate_batch: EvaluateBatch | None,
        lambda_of: LambdaOf,
        extras_of: ExtrasOf | None,
        on_reply: OnReply | None,
    ):
        self.n_atoms = n_atoms
        self.requests = 0
        self.lambda_of = lambda_of
        self._evaluate = evaluate
        self._evaluate_batch = evaluate_batch
        self._extras_of = extras_of
        self._on_reply = on_reply

    def evaluate(self, data: wire.PosData, lam: float, replica: int) -> list[Evaluation]:
        """One result per structure.  i-PI fills a batch up by repeating its last structure; those
        repetitions are not computed again."""
        total = len(data.positions)
        real = total
        while real > 1 and _same(data, real - 1, real - 2):
            real -= 1
        where = [
            f"at request {self.requests + b + 1} (replica {replica}, λ = {lam!r})"
            for b in range(real)
        ]
        for b in range(real):
            if not (np.isfinite(data.positions[b]).all() and np.isfinite(data.cells[b]).all()):
                raise RunError(f"i-PI sent positions or a cell that are not finite {where[b]}")
        x, h = data.positions[:real] / ANGSTROM, data.cells[:real] / ANGSTROM
        if self._evaluate_batch is not None and total > 1:
            results = self._evaluate_batch(x, h, lam)
            if len(results) != real:
                raise RunError(f"expected {real} results of a batch, got {len(results)}")
        else:
            results = [self._evaluate(x[b], h[b], lam) for b in range(real)]
        for result, place in zip(results, where, strict=True):
            _check(result, self.n_atoms, place)
        return results + results[-1:] * (total - real)

    def replies(self, results: list[Evaluation], lam: float) -> list[wire.Reply]:
        return [self._convert(result, lam) for result in results]

    def _convert(self, result: Evaluation, lam: float) -> wire.Reply:
        extras: dict[str, object] = {
            "lambda": float(lam),
            "dHdlambda": float(result.dHdlambda) * ELECTRONVOLT,
        }
        if self._extras_of is not None:
            more = dict(self._extras_of(lam, result))
            if clash := extras.keys() & more.keys():
                raise RunError(f"expected additional extras, got {sorted(clash)} again")
            extras |= more
        return wire.Reply(
            energy=float(result.energy) * ELECTRONVOLT,
            forces=np.asarray(result.forces, dtype=np.float64) * EV_PER_ANGSTROM,
            # i-PI's strain acts on column vectors, ours on rows.  Both virials are −∂H/∂ε.
            virial=np.asarray(result.virial, dtype=np.float64).T * ELECTRONVOLT,
            extras=wire.encode_extras(extras),
        )

    def count(self, results: list[Evaluation], lam: float) -> None:
        for result in results:
            self.requests += 1
            if self._on_reply is not None:
                self._on_reply(self.requests, lam, result)


def _converse(
    sock: socket.socket, worker: _Worker, address: Address, secret_of: SecretOf | None
) -> str | None:
    """Hold one conversation.  Returns why it ended, None if the peer vanished without a word.

    i-PI asks a new client for its STATUS at once: TimeoutError if nothing comes.  After that,
    waiting for work has no limit.
    """
    decoder = wire.Decoder(worker.n_atoms, address.shared_memory)
    segments: Segments | None = None
    results: list[Evaluation] = []
    replica, lam = 0, 0.0
    sock.settimeout(_FIRST_WORD)
    try:
        while True:
            event = decoder.next_event()
            if event is None:
                data = _receive(sock)
                if not data:
                    return None
                sock.settimeout(None)
                decoder.feed(data)
                continue

            answer = b""
            if isinstance(event, wire.Status):
                answer = wire.encode_status(event.state)
            elif isinstance(event, wire.Init):
                replica, lam = event.replica, worker.lambda_of(event.parameters)
            elif isinstance(event, wire.PosData):
                results = worker.evaluate(event, lam, replica)
            elif isinstance(event, wire.SharedPosData):
                if segments is None:
                    segments = Segments(event.names, event.batch_size, worker.n_atoms)
                results = worker.evaluate(segments.read(), lam, replica)
            elif isinstance(event, wire.GetForce):
                replies = worker.replies(results, lam)
                if segments is None:
                    answer = wire.encode_forces(replies)
                else:
                    segments.write(replies)
                    answer = wire.encode_shared(replies)
                if decoder.session is not None:
                    answer += decoder.session.mac(answer)
            elif isinstance(event, wire.Challenge):
                if secret_of is None:
                    raise InputError(f"the server at {address} asks for its run's secret")
                nonce = secrets.token_bytes(NONCE)
                decoder.session = Session(secret_of(), event.nonce, nonce)
                answer = wire.encode_proof(nonce, decoder.session.proof)
            elif isinstance(event, wire.Refused):
                raise InputError(
                    f"the server at {address} has another secret: copy that of its run folder"
                )
            else:
                return "EXIT"

            if answer and not _send(sock, answer):
                return "EXIT during a request" if _said_exit(sock, decoder) else None
            if isinstance(event, wire.GetForce):
                worker.count(results, lam)
                results = []
    finally:
        if segments is not None:
            segments.close()


def _receive(sock: socket.socket) -> bytes:
    """Some bytes; none if the peer is gone."""
    try:
        return sock.recv(_CHUNK)
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise


def _send(sock: socket.socket, data: bytes) -> bool:
    """All bytes in one piece; False if the peer is gone."""
    try:
        sock.sendall(data)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    return True


def _said_exit(sock: socket.socket, decoder: wire.Decoder) -> bool:
    """Whether a peer that no longer listens had said EXIT before it hung up."""
    sock.settimeout(1.0)
    while True:
        while (event := decoder.next_event()) is not None:
            if isinstance(event, wire.Exit):
                return True
        try:
            data = _receive(sock)
        except TimeoutError:
            return False
        if not data:
            return False
        decoder.feed(data)


def _same(data: wire.PosData, a: int, b: int) -> bool:
    return np.array_equal(data.positions[a], data.positions[b]) and np.array_equal(
        data.cells[a], data.cells[b]
    )


def _check(result: Evaluation, n_atoms: int, where: str) -> None:
    for name, shape in (("energy", ()), ("forces", (n_atoms, 3)), ("virial", (3, 3))):
        got = np.shape(getattr(result, name))
        if got != shape:
            raise RunError(f"expected {name} of shape {shape}, got {got} {where}")
    for name in ("energy", "forces", "virial", "dHdlambda"):
        if not np.all(np.isfinite(getattr(result, name))):
            raise RunError(
                f"{name} is not finite {where}: overlapping atoms or an unstable trajectory; "
                "nothing was sent to i-PI"
            )
