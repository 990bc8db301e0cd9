"""Code blocks of Markdown pages, and what becomes of each: the tests and the site read them here.

A block of commands or Python on a tutorial (``docs/tutorials``) is executed when the site is built,
in order.  Any other one carries a line before it that says who runs it, or why nobody does:

    <!-- run: tests/prepare/test_adopt.py -->     that test runs this command
    <!-- not run: hours -->                       or: hardware, download

On a tutorial such a line takes its block out of the execution.  ``<!-- output -->`` after an
executed block is replaced by what it printed, ``<!-- output: 5 -->`` by its last five lines.

    python tools/doc_blocks.py PAGE.md FOLDER     execute one page in FOLDER
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
REASONS = ("hours", "hardware", "download")
LIMIT = 900  # s, of one command of a tutorial

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>(?:not )?run): (?P<why>.*?) -->\n)?"
    r"```(?P<language>[^`\n]*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
_OUTPUT = re.compile(r"\A\n+<!-- output(?:: (\d+))? -->")
_PROMPT = re.compile(r"^[\w-]+\$ +")


@dataclass(frozen=True)
class Block:
    """One fenced block: *mark* is 'run', 'not run' or None, *why* what follows it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None
    why: str | None
    end: int  # where it ends on the page, in characters

    @property
    def executable(self) -> bool:
        """Commands or Python: what a reader may type."""
        return self.language in ("", "bash", "python")

    @property
    def commands(self) -> list[str]:
        """Its lines as a shell has them, prompts and comments taken off; of Python none."""
        if self.language == "python" or not self.executable:
            return []
        text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", self.text, flags=re.M | re.S)  # a file in place
        lines = text.replace("\\\n", " ").splitlines()
        plain = (_PROMPT.sub("", line).strip() for line in lines)
        return [line for line in plain if line and not line.startswith("#")]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page, text.count("\n", 0, m.start()) + 1, m["language"], m["text"], m["mark"], m["why"],
            m.end(),
        )
        for m in _BLOCK.finditer(text)
    ]  # fmt: skip


def pages() -> list[Path]:
    """The README and all pages of the site that are written by hand."""
    names = ("README.md", "CONTRIBUTING.md", "AGENTS.md", "SECURITY.md")
    site = [p for p in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in p.parts]
    return [*(ROOT / n for n in names), *site]


def calls(command: str) -> Iterator[list[str]]:
    """What each ``alchemdriver …`` of a line gives the program, as a shell splits it."""
    if "alchemdriver" not in command:
        return
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    call: list[str] | None = None
    first = True  # of a simple command
    for word in [*lexer, ";"]:
        if not set(word) <= set(";&|<>"):
            if call is not None:
                call.append(word)
            elif first and Path(word).name == "alchemdriver":
                call = []
            first = False
        else:
            if call is not None:
                yield call[:-1] if call[-1:] == ["2"] and word[0] in "<>" else call
            call, first = None, word[0] not in "<>"


# --- execution ----------------------------------------------------------------------------------


def execute(page: Path, folder: Path) -> str:
    """Execute the blocks of a tutorial in *folder*, in order; the page with their output in place.

    Raises RuntimeError, naming the block, at the first that fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text, done, at = page.read_text(), [], 0
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        done.append(text[at : block.end])
        at = block.end
        if not block.executable or block.mark is not None:
            continue
        if block.language == "python":
            printed = _python(block, folder, names)
        else:
            printed = _shell(block, folder)
        wanted = _OUTPUT.match(text[at:])
        if wanted:
            at += wanted.end()
            lines = printed.rstrip().splitlines()
            if wanted[1] and len(lines) > int(wanted[1]):
                lines = ["…", *lines[-int(wanted[1]) :]]
            done.append("\n\n```text\n" + "\n".join(lines) + "\n```\n")
    return "".join([*done, text[at:]])


def _python(block: Block, folder: Path, names: dict[str, object]) -> str:
    heard, home = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(heard):
            exec(compile(block.text, str(block), "exec"), names)
    except Exception as err:
        raise RuntimeError(f"{block}: {type(err).__name__}: {err}") from err
    finally:
        os.chdir(home)
    return heard.getvalue()


def _shell(block: Block, folder: Path) -> str:
    env = dict(os.environ, COLUMNS="100", OMP_NUM_THREADS="1", TERM="dumb", MPLBACKEND="agg")
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-e", "-c", block.text], cwd=folder, env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        printed, _ = shell.communicate(timeout=LIMIT)
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it left in its background
            os.killpg(shell.pid, signal.SIGTERM)
    if shell.returncode:
        raise RuntimeError(f"{block}: exit status {shell.returncode}\n{printed[-2000:]}")
    return printed


if __name__ == "__main__":
    print(execute(Path(sys.argv[1]).resolve(), Path(sys.argv[2])))
