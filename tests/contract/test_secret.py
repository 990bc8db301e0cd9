"""The secret of a run: its file, and what is proved with it."""

from __future__ import annotations

import hashlib

import pytest

from alchemdriver.contract.secret import (
    FILE,
    VARIABLE,
    Session,
    find_secret,
    make_secret,
)
from alchemdriver.errors import InputError

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_server_writes_its_secret_once_and_for_its_owner_alone(tmp_path):
    secret = make_secret(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    assert len(secret) == 64
    assert make_secret(tmp_path) == find_secret(tmp_path) == secret


def test_two_folders_have_two_secrets(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    assert make_secret(tmp_path / "a") != make_secret(tmp_path / "b")


def test_a_given_file_comes_before_the_environment_and_that_before_the_folder(
    tmp_path, monkeypatch
):
    make_secret(tmp_path)
    monkeypatch.setenv(VARIABLE, "e" * 32)
    assert find_secret(tmp_path) == b"e" * 32
    given = tmp_path / "given"
    given.write_text("f" * 32 + "\n")
    given.chmod(0o600)
    assert find_secret(tmp_path, given) == b"f" * 32


def test_a_server_with_the_variable_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "e" * 32)
    assert make_secret(tmp_path) == b"e" * 32
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_what_others_may_read_is_no_secret(tmp_path, mode):
    make_secret(tmp_path)
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(InputError, match=rf"others may read it \(mode {mode:o}\): chmod 600"):
        find_secret(tmp_path)


@pytest.mark.parametrize("text", ["", "qzj\n", "x" * 31])
def test_a_short_secret_is_refused_and_not_shown(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(InputError, match="at least 32 characters") as caught:
        find_secret(tmp_path)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_without_a_secret_the_message_says_where_it_comes_from(tmp_path):
    with pytest.raises(InputError, match=f"copy '{FILE}'.*--secret FILE.*{VARIABLE}"):
        find_secret(tmp_path)


def test_the_mac_is_that_of_the_description():
    """HMAC as RFC 2104 defines it, by hand."""

    def hmac(key, message):
        key = key.ljust(64, b"\0")
        inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + message).digest()
        return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()

    n = b"s" * 32 + b"c" * 32
    session = Session(SECRET, n[:32], n[32:])
    assert session.proof == hmac(SECRET, b"proof" + n)
    key = hmac(SECRET, b"session" + n)
    session.said(b"one")
    session.said(b"two")
    said = hashlib.sha256(b"onetwo").digest()
    assert session.mac(b"reply") == hmac(key, bytes(8) + said + b"reply")
    assert session.mac(b"reply") == hmac(key, bytes(7) + b"\1" + said + b"reply")


def test_two_connections_have_nothing_in_common():
    a, b = (Session(SECRET, nonce * 32, b"c" * 32) for nonce in (b"1", b"2"))
    assert a.proof != b.proof
    assert a.mac(b"") != b.mac(b"")
