"""The wire: whole, byte by byte, in random chunks; hostile lengths; the state table."""

import itertools
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemdriver.client import wire
from alchemdriver.client.wire import (
    TRANSITIONS,
    Decoder,
    Exit,
    GetForce,
    Init,
    PosData,
    Reply,
    State,
    Status,
    encode_extras,
    encode_forces,
    encode_status,
    parse_parameters,
)
from alchemdriver.errors import WireError

N = 3
CELL = np.array([[5.0, 0.0, 0.0], [1.0, 6.0, 0.0], [0.5, 0.25, 7.0]])  # rows
POSITIONS = np.arange(3.0 * N).reshape(N, 3)


def header(name):
    return name.ljust(12).encode()


def init(text=" lambda : 0.3 , ", replica=2, length=None):
    raw = text.encode()
    return (
        header("INIT") + struct.pack("=ii", replica, len(raw) if length is None else length) + raw
    )


def posdata(positions=POSITIONS, cell=CELL, count=None):
    h = np.ascontiguousarray(cell.T)  # as i-PI holds it: columns are the lattice vectors
    return (
        header("POSDATA")
        + h.tobytes()
        + np.linalg.inv(h).tobytes()
        + struct.pack("=i", len(positions) if count is None else count)
        + positions.tobytes()
    )


EXCHANGE = (
    header("STATUS")
    + init()
    + header("STATUS")
    + posdata()
    + header("STATUS")
    + header("GETFORCE")
    + header("STATUS")
    + header("EXIT")
)


def pull(decoder):
    events = []
    while (event := decoder.next_event()) is not None:
        events.append(event)
    return events


def decode(chunks, n_atoms=N):
    decoder = Decoder(n_atoms)
    events = []
    for chunk in chunks:
        decoder.feed(chunk)
        events += pull(decoder)
    return events


def assert_is_the_exchange(events):
    assert [type(e) for e in events] == [
        Status,
        Init,
        Status,
        PosData,
        Status,
        GetForce,
        Status,
        Exit,
    ]
    assert [e.state for e in events if isinstance(e, Status)] == [
        State.NEEDINIT,
        State.READY,
        State.HAVEDATA,
        State.NEEDINIT,
    ]
    assert events[1] == Init(replica=2, parameters={"lambda": "0.3"})
    assert np.array_equal(events[3].positions, POSITIONS[None])
    assert np.array_equal(events[3].cells, CELL[None])


# Decoding


def test_whole_exchange_in_one_piece():
    assert_is_the_exchange(decode([EXCHANGE]))


def test_whole_exchange_byte_by_byte():
    assert_is_the_exchange(decode([EXCHANGE[i : i + 1] for i in range(len(EXCHANGE))]))


@given(st.lists(st.integers(0, len(EXCHANGE)), max_size=12))
def test_chunking_does_not_matter(cuts):
    edges = [0, *sorted(cuts), len(EXCHANGE)]
    assert_is_the_exchange(decode([EXCHANGE[a:b] for a, b in itertools.pairwise(edges)]))


def test_event_comes_with_its_last_byte_and_not_before():
    message = init()
    decoder = Decoder(N)
    decoder.feed(message[:-1])
    assert decoder.next_event() is None
    assert decoder.state is State.NEEDINIT
    decoder.feed(message[-1:])
    assert isinstance(decoder.next_event(), Init)
    assert decoder.state is State.READY


def test_trailing_bytes_stay_for_the_next_event():
    decoder = Decoder(N)
    decoder.feed(header("STATUS") + b"INI")
    assert pull(decoder) == [Status(State.NEEDINIT)]
    decoder.feed(init()[3:])
    assert pull(decoder) == [Init(2, {"lambda": "0.3"})]


def test_nothing_is_read_after_exit():
    decoder = Decoder(N)
    decoder.feed(header("EXIT") + b"whatever follows, it does not matter")
    assert pull(decoder) == [Exit()]
    assert decoder.next_event() is None


def test_consolidated_request_gives_two_events():
    events = decode([init() + posdata() + header("GETFORCE")])
    assert [type(e) for e in events] == [Init, PosData, GetForce]


def test_events_cannot_be_changed():
    data = decode([init() + posdata()])[1]
    with pytest.raises(ValueError, match="read-only"):
        data.positions[0, 0, 0] = 1.0


@given(st.integers(1, 4), st.integers(2, 5), st.randoms(use_true_random=False))
def test_batch_layout(n, b, random):
    positions = np.array([random.random() for _ in range(b * n * 3)]).reshape(b, n, 3)
    cells = np.array([random.random() for _ in range(b * 9)]).reshape(b, 3, 3)
    blocks = b"".join(np.ascontiguousarray(c.T).tobytes() + bytes(72) for c in cells)
    message = header("POSDATA") + struct.pack("=i", n) + blocks + positions.tobytes()
    # this is how i-PI appends it: after its own trailing comma
    announced = init(f" lambda : 0.3 , , batch_size:{b}")
    first, data, _ = decode([announced, message[:50], message[50:] + header("GETFORCE")], n)
    assert first == Init(2, {"lambda": "0.3"}, batch_size=b)
    assert np.array_equal(data.positions, positions)
    assert np.array_equal(data.cells, cells)


def test_batch_lasts_until_the_next_init():
    decoder = Decoder(N)
    decoder.feed(init("batch_size:2"))
    decoder.feed(header("POSDATA") + struct.pack("=i", N) + bytes(2 * (144 + 24 * N)))
    decoder.feed(header("GETFORCE") + EXCHANGE)
    events = pull(decoder)
    assert events[1].positions.shape == (2, N, 3)
    assert_is_the_exchange(events[3:])


# What must be refused


@pytest.mark.parametrize("count", [2**31 - 1, -1, -(2**31), 0, N + 1])
def test_atom_count_bomb(count):
    decoder = Decoder(N)
    decoder.feed(init() + posdata(count=count)[: 12 + 144 + 4])
    decoder.next_event()
    with pytest.raises(WireError, match=f"expected 3 atoms, i-PI announces {count}"):
        decoder.next_event()


@pytest.mark.parametrize("length", [2**31 - 1, wire.MAX_INIT + 1, -1, -(2**31)])
def test_init_length_bomb(length):
    with pytest.raises(WireError, match=f"got length {length}"):
        decode([init("", length=length)])


@pytest.mark.parametrize("batch", ["2147483647", "0", "-1", "two", "", "1e9", "4097"])
def test_batch_size_bomb(batch):
    with pytest.raises(WireError, match="batch_size of 1 to 4096"):
        decode([init(f"batch_size:{batch}")])


def test_bombs_allocate_nothing():
    bombs = [init("", length=2**31 - 1), init() + posdata(count=2**31 - 1)]
    tracemalloc.start()
    try:
        for bomb in bombs:
            with pytest.raises(WireError):
                decode([bomb])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_unknown_header_is_named():
    with pytest.raises(WireError, match=r"got the bytes b'HTTP/1.1 400'"):
        decode([b"HTTP/1.1 400 Bad Request\r\n"])


def test_headers_are_exact():
    with pytest.raises(WireError):
        decode([b"status      "])
    with pytest.raises(WireError):
        decode([b"STATUS\0\0\0\0\0\0"])


def test_shared_memory_without_the_mode_is_refused():
    names = b"".join(
        struct.pack("=i", 20) + f"ipi_shm_1234_05_{k:4s}".encode()
        for k in ("pos", "h", "ih", "pot", "forc", "vir")
    )
    with pytest.raises(WireError, match="mode of <ffsocket>"):
        decode([init() + header("POSDATA") + struct.pack("=i", N) + names + header("GETFORCE")])


def test_non_ascii_parameters_are_refused():
    # i-PI sends len(characters) and then the UTF-8 bytes, which are more
    text = " model : ../modèle.model , "
    with pytest.raises(WireError, match="ASCII"):
        decode([init(text, length=len(text))])


def test_error_is_final():
    decoder = Decoder(N)
    decoder.feed(b"garbage here")
    for _ in range(2):
        with pytest.raises(WireError, match="garbage here"):
            decoder.next_event()
    decoder.feed(header("STATUS"))
    with pytest.raises(WireError, match="garbage here"):
        decoder.next_event()


def refused(chunks):
    """The error of a broken stream, None if it passes; anything but WireError escapes."""
    try:
        decode(chunks)
    except WireError as error:
        return str(error)
    return None


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_garbage_raises_only_wire_errors(chunks):
    assert "\n" not in (refused(chunks) or "")


@given(st.binary(max_size=200))
def test_garbage_after_a_good_header_raises_only_wire_errors(data):
    assert "\n" not in (refused([header("INIT"), data]) or "")
    assert "\n" not in (refused([init(), header("POSDATA"), data]) or "")


MESSAGES = [header("STATUS"), init(), posdata(), header("GETFORCE"), header("EXIT")]
MESSAGES += [header("CHALLENGE") + bytes(32), header("REFUSED")]


@given(st.integers(0, len(EXCHANGE) - 1), st.integers(1, 255))
def test_one_flipped_byte_raises_only_wire_errors(position, change):
    broken = bytearray(EXCHANGE)
    broken[position] ^= change
    assert "\n" not in (refused([bytes(broken)]) or "")


@given(st.lists(st.sampled_from(MESSAGES), max_size=12))
def test_any_order_of_messages_follows_the_table(messages):
    names = [m[:12].decode().strip() for m in messages]
    state = State.NEEDINIT
    legal = 0
    for name in names:
        if state is State.CLOSED or name not in TRANSITIONS[state]:
            break
        state = TRANSITIONS[state][name]
        legal += 1
    decoder = Decoder(N)
    decoder.feed(b"".join(messages))
    for _ in range(legal):
        assert decoder.next_event() is not None
    assert decoder.state is state
    if legal < len(messages) and state is not State.CLOSED:
        with pytest.raises(WireError, match=f"in state {state.value}, got {names[legal]}"):
            decoder.next_event()
    else:
        assert decoder.next_event() is None


def test_state_table():
    assert {s: {m: t.name for m, t in row.items()} for s, row in TRANSITIONS.items()} == {
        State.NEEDINIT: {
            "STATUS": "NEEDINIT",
            "INIT": "READY",
            "EXIT": "CLOSED",
            "CHALLENGE": "NEEDINIT",
            "REFUSED": "CLOSED",
        },
        State.READY: {"STATUS": "READY", "POSDATA": "HAVEDATA", "EXIT": "CLOSED"},
        State.HAVEDATA: {"STATUS": "HAVEDATA", "GETFORCE": "NEEDINIT", "EXIT": "CLOSED"},
    }


# Parameters


def test_parameters_as_ipi_writes_them():
    pars = {"lambda": 0.30, "alchemy": "Pb[0-3]->Sn Cs[5]->Rb", "model": "C:models/x.model"}
    text = " " + "".join(f"{k} : {v} , " for k, v in pars.items())  # ForceField.queue
    assert parse_parameters(text) == {k: str(v) for k, v in pars.items()}


@pytest.mark.parametrize("text", ["", " ", " , ,", "\t"])
def test_no_parameters(text):
    assert parse_parameters(text) == {}


def test_value_may_be_empty_and_may_hold_colons():
    assert parse_parameters("a:,b: x:y : z ,") == {"a": "", "b": "x:y : z"}


@pytest.mark.parametrize("text", ["lambda 0.3", "a : 1 , b", ": 1", "a : x,y"])
def test_malformed_parameters(text):
    with pytest.raises(WireError, match="expected 'key : value'"):
        parse_parameters(text)


def test_repeated_parameter():
    with pytest.raises(WireError, match="'a' twice"):
        parse_parameters("a:1,b:2,a:1")


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",:"))


@given(st.dictionaries(WORD.filter(bool), WORD))
def test_parameters_survive_the_trip(pars):
    assert parse_parameters(" " + "".join(f"{k} : {v} , " for k, v in pars.items())) == pars


# Encoding


def test_status_answers():
    assert encode_status(State.NEEDINIT) == b"NEEDINIT    "
    assert encode_status(State.READY) == b"READY       "
    assert encode_status(State.HAVEDATA) == b"HAVEDATA    "
    with pytest.raises(WireError):
        encode_status(State.CLOSED)


def test_headers_are_those_of_ipi():
    sockets = pytest.importorskip("ipi.interfaces.sockets")
    for state in TRANSITIONS:
        assert encode_status(state) == sockets.MESSAGE[state.value.lower()]
    ours = {"CHALLENGE", "REFUSED"}
    for message in (TRANSITIONS[State.NEEDINIT] | TRANSITIONS[State.READY]).keys() - ours:
        assert sockets.MESSAGE[message.lower()] == header(message)


def test_forces_layout():
    forces = np.asfortranarray(np.arange(6.0).reshape(2, 3))  # memory order must not leak
    virial = np.arange(9.0).reshape(3, 3)
    raw = encode_forces([Reply(-1.5, forces, virial, b"{}")])
    assert raw[:12] == b"FORCEREADY  "
    assert struct.unpack("=d", raw[12:20]) == (-1.5,)
    assert struct.unpack("=i", raw[20:24]) == (2,)
    assert np.array_equal(np.frombuffer(raw[24:72]), np.arange(6.0))
    assert np.array_equal(np.frombuffer(raw[72:144]), np.arange(9.0))
    assert raw[144:] == struct.pack("=i", 2) + b"{}"


def test_batched_forces_layout():
    replies = [Reply(k, np.full((2, 3), k), np.full((3, 3), k), b"x" * k) for k in range(3)]
    raw = encode_forces(replies)
    assert struct.unpack("=ddd", raw[12:36]) == (0, 1, 2)
    assert struct.unpack("=i", raw[36:40]) == (2,)
    assert np.array_equal(np.frombuffer(raw[40:184]), np.repeat([0.0, 1, 2], 6))
    assert np.array_equal(np.frombuffer(raw[184:400]), np.repeat([0.0, 1, 2], 9))
    assert raw[400:] == b"".join(struct.pack("=i", k) + b"x" * k for k in range(3))


def test_single_precision_is_widened():
    raw = encode_forces([Reply(0.0, np.ones((1, 3), np.float32), np.eye(3, dtype=np.float32))])
    assert np.array_equal(np.frombuffer(raw[24:48]), [1, 1, 1])


def test_wrong_shapes_are_not_sent():
    with pytest.raises(WireError, match="shape"):
        encode_forces([Reply(0.0, np.zeros(6), np.eye(3))])
    with pytest.raises(WireError, match="shape"):
        encode_forces([Reply(0.0, np.zeros((2, 3)), np.zeros(6))])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_extras_keep_every_digit(value):
    assert json.loads(encode_extras({"lambda": value}))["lambda"] == value


def test_extras_refuse_raw():
    with pytest.raises(WireError, match="raw"):
        encode_extras({"raw": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.zeros(2), 1j])
def test_extras_refuse_what_json_cannot_hold(value):
    with pytest.raises(WireError, match="JSON"):
        encode_extras({"x": value})


def test_public_names():
    assert all(hasattr(wire, name) for name in wire.__all__)
