"""i-PI's socket interface, which nobody can hold up.

Clients come in through :class:`~.greeting.Greeter`; work goes out and comes back without waiting
for any one of them.  Who sends what it must not, or too slowly, is dropped and its work handed on.
"""

from __future__ import annotations

import logging
import os
import queue
import selectors
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ipi.interfaces.sockets import SERVERTIMEOUT, InterfaceSocket, Status

from .clock import LambdaClock
from .drivers import SILENCE, Common, NonBlockingDriver, NonBlockingSHMDriver
from .greeting import BACKLOG, Complaints, Greeted, Greeter
from .ipi_types import Driver, Interface
from .replies import HUNG, Dropped

log = logging.getLogger(__name__)

CLIENTS = 256  # at a time
_WAIT = 0.01  # s between looks at who came and what is overdue, as i-PI's
_MATCHING = {  # of requests and clients, by i-PI's option
    "auto": ("match", "none", "free", "any"),
    "any": ("any",),
    "lock": ("match", "none"),
}


class Port(InterfaceSocket):  # type: ignore[misc]
    """Takes the place of *stock*, before it is opened.

    keys: extras that the input prints or interpolates.  clock: None for a forcefield that is not
    the alchemical one.  secret_of: called when the port is open, returns what clients have to
    prove; None lets everybody in.
    """

    clients: list[Driver]
    jobs: list[list[Any]]  # request or list of them, client, nothing

    def __init__(
        self,
        stock: Interface,
        keys: int,
        clock: LambdaClock | None,
        secret_of: Callable[[], bytes] | None,
    ):
        super().__init__()
        self.__dict__.update(vars(stock))
        self.consolidate_messages = True  # a request is one message here, whatever the input says
        self._keys, self._clock, self._secret_of = keys, clock, secret_of
        self._complaints = Complaints()
        self._selector = selectors.DefaultSelector()

    def open(self) -> None:
        umask = os.umask(0o177) if self.mode != "inet" else None  # of a unix socket, from the start
        try:
            super().open()
        finally:
            if umask is not None:
                os.umask(umask)
        self.server.listen(BACKLOG)
        self.common = Common(self._complaints, self._keys, self.batch_size, self._clock)
        secret = None if self._secret_of is None else self._secret_of()
        self.greeter = Greeter(self.server, secret, self._complaints)
        self.greeter.start()

    def close(self) -> None:
        self.greeter.close()
        self._admit()  # who waited is told that it is over
        super().close()

    def pool_update(self) -> None:
        """Who left, and who came; without clients, wait half a second for one."""
        self._exchange(0.0)
        self._admit(0.0 if self.clients else SERVERTIMEOUT)

    def _pool_distribute_select(self) -> None:
        """Hand out work and collect results until nothing is out."""
        self._hand_out()
        while self.jobs:
            self._exchange(_WAIT)
            self._collect()
            self._admit()
            if any(request["status"] == "Exit" for request in self.requests):
                return  # i-PI is ending, and must not wait for a client
            self._hand_out()

    def _admit(self, wait: float = 0.0) -> None:
        while True:
            try:
                greeted = self.greeter.greeted.get(wait > 0, wait)
            except queue.Empty:
                return
            wait = 0.0
            with greeted.sock:  # the driver has a duplicate
                self._let_in(greeted)

    def _let_in(self, greeted: Greeted) -> None:
        if len(self.clients) >= CLIENTS:
            busy = {id(client) for _, client, _ in self.jobs}
            idle = (c for c in self.clients if id(c) not in busy and c.lastreq is None)
            useless = next(idle, None)
            if useless is None:
                self._complaints.add("too many clients")
                return
            self._drop(useless, "too many clients")
        kind = NonBlockingSHMDriver if self.mode == "shm" else NonBlockingDriver
        try:
            client = kind(greeted, self.common)
        except OSError:  # gone meanwhile
            return
        self._selector.register(client, selectors.EVENT_READ, client)
        self.clients.append(client)
        log.info("client %s came in", client.peername or client.process)

    def _hand_out(self) -> None:
        """Queued requests to free clients, matched in i-PI's way."""
        self.prlist = [request for request in self.requests if request["status"] == "Queued"]
        if not self.prlist:
            return
        busy = {id(client) for _, client, _ in self.jobs}
        free = [client for client in self.clients if id(client) not in busy]
        # who has answered before goes first: strangers that take work and keep it do not
        for answered in (True, False):
            for match in _MATCHING[self.match_mode]:
                for client in [c for c in free if (c.lastreq is not None) is answered]:
                    if self.prlist and self.dispatch_free_client(client, match):
                        free.remove(client)
        for _, client, _ in self.jobs:
            self._listen_for(client)
        for client in free:
            if not client.status & Status.Up:
                self._drop(client)

    def _exchange(self, wait: float) -> None:
        """Send and receive what is possible within *wait* seconds."""
        for key, events in self._selector.select(wait):
            client = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    client.flush()
                if events & selectors.EVENT_READ:
                    client.take_in()
            except Dropped as why:
                # who knows the secret is honest, the line is not: it may connect again
                self._drop(client, str(why), "a message", farewell=client.session is None)
            except OSError:
                self._drop(client)
            else:
                self._listen_for(client)

    def _listen_for(self, client: Driver) -> None:
        """Wake up for what *client* sends and, while something is left to write, when it reads."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.outbox else 0)
        if self._selector.get_key(client).events != events:
            self._selector.modify(client, events, client)

    def _collect(self) -> None:
        """Results that are there; who is late with one is dropped."""
        now = time.monotonic()
        for job in self.jobs[:]:
            requests, client, _ = job
            if client.answered:
                read = (
                    client.dispatch_recv_batch
                    if isinstance(requests, list)
                    else client.dispatch_recv
                )
                if read(requests):
                    self.jobs = [other for other in self.jobs if other is not job]
                if not client.status & Status.Up:
                    self._drop(client)
                continue
            started = (requests[0] if isinstance(requests, list) else requests)["start"]
            late = client.overdue(now)
            if late:
                self._drop(client, late, farewell=client.session is None)
            elif client.hangs(now):
                self._drop_hung(client, SILENCE)
            elif 0 < self.timeout < time.time() - started < time.time():
                self._drop_hung(client, self.timeout)

    def _drop_hung(self, client: Driver, limit: float) -> None:
        """Drop a client and name its process: the supervisor ends it if it is a local one.

        One that has answered here is not too slow: its line broke, and it may connect again.  If it
        then answers nothing in time, it is told not to come back.
        """
        log.error(HUNG, client.process, limit)
        self._drop(client, farewell=client.lastreq is None)

    def _drop(
        self, client: Driver, why: str = "", kind: str = "", *, farewell: bool = True
    ) -> None:
        """Hang up on *client*; the work that it has is queued again.  Complaints of one *kind* are
        counted together.  i-PI's *farewell*, EXIT, tells the client not to come back."""
        if why:
            self._complaints.add(kind or why, why)
        for requests, owner, _ in self.jobs:
            if owner is client:
                self._requeue_disconnected(requests, client)
        self.jobs = [job for job in self.jobs if job[1] is not client]
        self.clients = [other for other in self.clients if other is not client]
        self._selector.unregister(client)
        if farewell:
            with suppress(OSError):
                client.shutdown()
        client.close()
