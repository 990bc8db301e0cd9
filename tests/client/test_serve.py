"""The socket loop against the real i-PI, with an analytic potential."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.sockets import (
    ANCHORS,
    CELL,
    LAMBDA,
    LIMIT,
    OPTIONS,
    N,
    Recorder,
    Server,
    in_thread,
    lambda_of,
    springs,
)

from alchemdriver import units
from alchemdriver.client import serve as loop
from alchemdriver.client import wire
from alchemdriver.client.serve import Served, connect, serve
from alchemdriver.errors import ModelError, RunError
from alchemdriver.records import Evaluation

pytest.importorskip("ipi")

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("mode", "beads", "consolidate"),
    [("unix", 1, True), ("unix", 4, False), ("inet", 1, False), ("inet", 4, True)],
)
def test_ipi_prints_the_analytic_values(where, mode, beads, consolidate):
    recorder = Recorder()
    seen = []

    def remember(parameters):
        seen.append(parameters)
        return lambda_of(parameters)

    with Server(where, mode, beads, steps=20, consolidate=consolidate) as server:
        options = OPTIONS | {"evaluate": recorder, "lambda_of": remember}
        served = serve(server.address, **options)
        server.wait()
    assert served == Served(requests=21 * beads, reason="EXIT")
    # every request brings its own
    assert seen == [{"lambda": "0.3", "alchemy": "Cu[0-1]->Ag"}] * (21 * beads)

    h = np.array(CELL)
    np.testing.assert_allclose(recorder.h, np.tile(h, (21 * beads, 1, 1)), rtol=1e-9, atol=1e-9)
    x = recorder.exact(server.xyz("pos"))
    truth = [[springs(x[b, t], h, LAMBDA) for t in range(21)] for b in range(beads)]

    def expected(quantity, unit):
        return np.array([[getattr(e, quantity) for e in row] for row in truth]) * unit

    def close(actual, desired):
        np.testing.assert_allclose(actual, desired, rtol=1e-8, atol=1e-11)

    rows = server.rows()
    volume = np.linalg.det(h) * units.ANGSTROM**3
    close(rows[:, 2], volume)
    close(rows[:, 1], expected("energy", units.ELECTRONVOLT).mean(axis=0))
    close(server.extras("dhdl"), expected("dHdlambda", units.ELECTRONVOLT))
    assert np.all(server.extras("lam") == LAMBDA)
    forces = expected("forces", units.EV_PER_ANGSTROM)
    close(rows[:, 9:12], forces[0, :, 1])  # atom 1 of bead 0, all digits
    np.testing.assert_allclose(server.xyz("for"), forces, rtol=1e-5, atol=1e-9)
    virial = expected("virial", units.ELECTRONVOLT).mean(axis=0) / volume
    xx_yy_zz_xy_xz_yz = virial[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    close(rows[:, 3:9], xx_yy_zz_xy_xz_yz)
    assert np.abs(xx_yy_zz_xy_xz_yz).min() > 0  # off-diagonal elements take part


STIFFNESS = np.array([[1.0, 0.4, 0.0], [0.4, 2.0, -0.5], [0.0, -0.5, 3.0]])  # eV/Å²


def directed_springs(x, h, lam):
    """H = ½ Σ d·K d: turning the crystal costs energy, so −∂H/∂ε is not symmetric.  eV, Å."""
    d = x - ANCHORS @ h
    return Evaluation(
        energy=0.5 * np.sum(d * (d @ STIFFNESS)),
        forces=-d @ STIFFNESS,
        virial=-d.T @ (d @ STIFFNESS),
        dHdlambda=0.0,
    )


def test_an_asymmetric_virial_reaches_ipi_the_right_way_round(where):
    """i-PI strains columns, and only so that its cell stays upper triangular: r -> (1 + ε) r with
    ε_xy, ε_xz and ε_yz.  Of the virial it keeps these components, and drops the other three."""
    recorder = Recorder(directed_springs)
    with Server(where, steps=5) as server:
        serve(server.address, **(OPTIONS | {"evaluate": recorder}))
        server.wait()
    h, step = np.array(CELL), 1e-5
    expected, transposed = [], []
    for x in recorder.exact(server.xyz("pos"))[0]:
        slope = np.zeros((3, 3))
        for index in np.ndindex(3, 3):
            energies = []
            for sign in (1.0, -1.0):
                f = np.eye(3)
                f[index] += sign * step
                energies.append(directed_springs(x @ f.T, h @ f.T, LAMBDA).energy)
            slope[index] = (energies[1] - energies[0]) / (2.0 * step)
        expected.append(slope[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]])
        transposed.append(slope[[0, 1, 2, 1, 2, 2], [0, 1, 2, 0, 0, 1]])
    volume = np.linalg.det(h) * units.ANGSTROM**3
    printed = server.rows()[:, 3:9] * volume / units.ELECTRONVOLT  # xx yy zz xy xz yz
    np.testing.assert_allclose(printed, expected, rtol=1e-6, atol=1e-8)
    assert np.abs(np.subtract(expected, transposed)).max() > 1e-3


def test_virial_is_minus_the_strain_derivative_of_the_energy():
    # The test's own potential: otherwise its signs would prove nothing about i-PI's.
    rng = np.random.default_rng(3)
    x, h = rng.random((N, 3)) * 5, np.array(CELL)
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = 1e-5
            up, down = (
                springs(x @ (np.eye(3) + s * strain), h @ (np.eye(3) + s * strain), 0.3).energy
                for s in (1, -1)
            )
            assert springs(x, h, 0.3).virial[a, b] == pytest.approx((down - up) / 2e-5, abs=1e-6)


def test_numbers_agree_with_the_ase_driver_of_ipi(where):
    # the same atoms through i-PI's own python driver and through ours
    from ase.build import bulk
    from ase.calculators.lj import LennardJones
    from ipi.pes._ase import ASEDriver

    atoms = bulk("Ar", "fcc", 5.3).repeat((2, 2, 2))
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    atoms.write(where / "ar.xyz")

    class LJ(ASEDriver):
        def check_parameters(self):
            super().check_parameters()
            self.ase_calculator = LennardJones(epsilon=0.0103, sigma=3.4, rc=8.0)

    pos, cell = atoms.positions * units.ANGSTROM, atoms.cell.array.T * units.ANGSTROM
    energy, forces, virial, _ = LJ(str(where / "ar.xyz")).compute_structure(cell, pos)

    atoms.calc = LennardJones(epsilon=0.0103, sigma=3.4, rc=8.0)
    stress = atoms.get_stress(voigt=False)
    ours = Evaluation(
        atoms.get_potential_energy(), atoms.get_forces(), -stress * atoms.get_volume(), 0.0
    )
    worker = loop._Worker(len(atoms), None, None, None, None, None)
    reply = worker._convert(ours, 0.0)
    assert reply.energy == pytest.approx(float(energy), rel=1e-9)
    # i-PI rounds its "ev/ang" to eight digits; ours is the quotient, so that energy is conserved
    np.testing.assert_allclose(reply.forces, forces, rtol=3e-7, atol=1e-12)
    np.testing.assert_allclose(reply.virial, virial.reshape(3, 3), rtol=1e-7, atol=1e-9)


def test_batched_requests(where):
    recorder = Recorder()
    settings = "<batch_size> 3 </batch_size>"
    with Server(where, beads=4, steps=5, settings=settings) as server:
        served = serve(server.address, **(OPTIONS | {"evaluate": recorder}))
        server.wait()
    assert served.requests == 6 * 6  # 4 beads in batches of 3: the second is padded ...
    assert len(recorder.x) == 5 * 4 + 2  # ... at no cost; at the start all beads coincide
    x = recorder.exact(server.xyz("pos"))
    truth = [[springs(f, np.array(CELL), LAMBDA) for f in bead] for bead in x]
    for printed, quantity in (("for", "forces"), ("dhdl", "dHdlambda")):
        actual = server.xyz(printed) if printed == "for" else server.extras(printed)
        unit = units.EV_PER_ANGSTROM if printed == "for" else units.ELECTRONVOLT
        desired = np.array([[getattr(e, quantity) for e in bead] for bead in truth]) * unit
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-9)


def test_two_clients_share_the_beads(where):
    with Server(where, beads=4, steps=30) as server:
        slow = OPTIONS | {"evaluate": lambda *a: time.sleep(0.003) or springs(*a)}
        clients = [in_thread(serve, server.address, **slow) for _ in range(2)]
        served = [c().requests for c in clients]
        server.wait()
    assert sum(served) == 4 * 31
    assert min(served) > 5


CLIENT_THAT_DIES = """
import os, sys, logging
sys.path.insert(0, {tests!r})
from alchemdriver.client.serve import serve
from helpers import sockets as t
def die(count, lam, evaluation):
    if count == 7:
        os._exit(3)
serve(t.Address.unix({path!r}), **t.OPTIONS, on_reply=die)
"""


def test_second_client_takes_over_when_the_first_dies(where):
    with Server(where, beads=2, steps=20) as server:
        script = CLIENT_THAT_DIES.format(tests=str(TESTS), path=server.address.path)
        first = subprocess.run([sys.executable, "-c", script], timeout=LIMIT, check=False)
        assert first.returncode == 3
        second = serve(server.address, **OPTIONS)
        server.wait()
    assert second.requests >= 2 * 21 - 7
    assert len(server.rows()) == 21


def test_client_that_dies_in_mid_evaluation_loses_nothing(where):
    count = itertools.count()

    def fail(x, h, lam):
        if next(count) == 5:
            raise ModelError("out of memory")
        return springs(x, h, lam)

    with Server(where, steps=20) as server:
        with pytest.raises(ModelError, match="out of memory"):
            serve(server.address, **(OPTIONS | {"evaluate": fail}))
        second = serve(server.address, **OPTIONS)
        server.wait()
    assert second.requests == 21 - 5
    potential = server.rows()[:, 1]
    assert np.isfinite(potential).all()
    assert len(potential) == 21


def test_server_restarted_under_a_living_client(where):
    (where / "a").mkdir()
    (where / "b").mkdir()
    half = threading.Event()

    def on_reply(count, lam, evaluation):
        if count == 30:
            half.set()

    with Server(where / "a", steps=100000) as first:
        result = in_thread(serve, first.address, **OPTIONS, on_reply=on_reply)
        assert half.wait(LIMIT)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(LIMIT)
        os.unlink(first.address.path)  # a killed i-PI leaves its socket file
    name = first.address.path.removeprefix("/tmp/ipi_")
    with Server(where / "b", steps=10, name=name) as second:
        served = result()
        second.wait()
    assert served.reason == "EXIT"
    assert served.requests >= 30 + 11
    assert len(second.rows()) == 11


def test_server_gone(where):
    half = threading.Event()
    with Server(where, steps=100000) as server:
        connect(server.address, LIMIT).close()  # it listens, and puts up with this
        result = in_thread(
            serve,
            server.address,
            **(OPTIONS | {"patience": 0.5}),
            on_reply=lambda count, *_: half.set(),
        )
        assert half.wait(LIMIT)
        server.process.kill()
        with pytest.raises(RunError, match=r"server gone: .* for 0.5 s after \d+ requests"):
            result()


def test_stopping_ipi_with_a_signal_is_a_clean_end(where):
    half = threading.Event()
    with Server(where, steps=100000) as server:
        result = in_thread(serve, server.address, **OPTIONS, on_reply=lambda count, *_: half.set())
        assert half.wait(LIMIT)
        server.process.terminate()
        assert result().reason.startswith("EXIT")


def test_public_names():
    assert set(loop.__all__) == {"Served", "connect", "serve"}
    assert wire.Decoder(1).state is wire.State.NEEDINIT
