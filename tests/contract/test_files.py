"""Files are whole or as they were, UTF-8 in any locale, and refusals are one line."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from alchemdriver.contract import files
from alchemdriver.errors import InputError

TEXT = "λ = ½, Å\n"


def test_many_files_are_written_together_or_not_at_all(tmp_path):
    wanted = {tmp_path / "a.csv": TEXT, tmp_path / "b": b"\x00\xff", tmp_path / "c.json": "{}\n"}
    files.write_files(wanted)
    assert (tmp_path / "a.csv").read_bytes() == TEXT.encode("utf-8")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    with pytest.raises(FileNotFoundError):
        files.write_files({tmp_path / "a.csv": "new", tmp_path / "nowhere" / "d": "new"})
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == TEXT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b", "c.json"]  # no asides


def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "figure.png"
    files.write_text(path, "old")

    def fail():
        with files.written_aside(path) as aside:
            assert aside.suffix == ".png"
            assert aside.parent == tmp_path  # the same file system, so that renaming is atomic
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_previous_file_is_kept_where_asked(tmp_path):
    path = tmp_path / "RESTART"
    for text in ("1", "2", "3"):
        files.write_text(path, text, keep_previous=True)
    assert path.read_text() == "3"
    assert (tmp_path / "RESTART.previous").read_text() == "2"


def test_permissions_are_those_of_the_umask_and_then_stay(tmp_path):
    path, old = tmp_path / "a", os.umask(0o027)
    try:
        files.write_text(path, "1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o664)
        files.write_text(path, "2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o664
    finally:
        os.umask(old)


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "a").read_text() == "new"


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    code = (
        "import sys; from pathlib import Path; from alchemdriver.contract import files\n"
        "p = Path(sys.argv[1]); files.write_json(p, {'\\u03bb': '\\u00c5'})\n"
        "files.append_line(p, '\\u03bb'); assert files.read_text(p).endswith('\\u03bb\\n')"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = tmp_path / "a.json"
    subprocess.run([sys.executable, "-c", code, path], env=environment, check=True, timeout=120)
    assert path.read_bytes().decode("utf-8") == '{\n  "λ": "Å"\n}\nλ\n'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", "is not a text file"),
        (b"{", "is not JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[" * 100_000, "too deeply nested"),
        (b"9" * 10_000, "is not JSON"),
    ],
)
def test_what_is_not_json_is_one_line(tmp_path, content, says):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        files.read_json(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_folder_and_an_absent_file_are_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="cannot be read"):
            files.read_text(path)


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
