"""Run folders with one thing wrong in them, through prepare, run, analyze and gather.

    python -m campaigns.mutants FOLDER [--number 1000] [--seed 1] [--output benchmarks/mutants.json]

A mutant is one of the folders of ``frozen/`` with one file changed: bytes flipped, cut, doubled,
left out; a JSON value of another kind or size; an XML element, attribute or text deleted, doubled,
replaced; a file missing, a folder, unreadable, a link to nowhere.  Each goes through the command
line in a process of its own, forked from this one.  What must not happen:

    a traceback, a signal, or no end within a minute
    an error without exactly one line that begins with ``error:``
    other numbers than the unchanged folder's, without a line that says why

A server that ``run`` would start for an unfinished run loads its input in the same process and
stops before the first step.  Files that are meant to be edited may give other numbers: a structure
and a model that are prepared from, ``workflow.json``, and options of an unfinished run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from frozen import freeze

from alchemdriver import analysis
from alchemdriver.cli import main as cli
from alchemdriver.contract import origin
from alchemdriver.contract.run_input import read_input
from alchemdriver.execute import children
from alchemdriver.server import serve

LIMIT = 60.0  # s of one command
# name: (archive, part, what to do with it)
CASES = {
    "switches": ("switch-nvt", "finished", ("analyze", "run")),
    "windows": ("windows-nvt", "finished", ("analyze", "run")),
    "one lambda": ("nvt-fixed", "finished", ("analyze", "run")),
    "mass leg": ("switch-pimd", "finished", ("analyze",)),
    "half a switch": ("switch-nvt", "half", ("run",)),
    "half a window": ("windows-nvt", "half", ("run",)),
    "stages": ("crystal", "finished", ("gather", "analyze", "run")),
    "a structure": ("switch-nvt", "prepared", ("prepare",)),
}
_BY_HAND = ("workflow.json", "relax.json")
_LEFT_ALONE = (".log", ".png", ".html", ".lock")


# --- folders ------------------------------------------------------------------------------------


def unpack(folder: Path) -> None:
    """The folders of all cases, with the records that today's code writes of them."""
    for archive in dict.fromkeys(archive for archive, _, _ in CASES.values()):
        with tarfile.open(Path(freeze.__file__).with_name(f"{archive}.tar.xz")) as packed:
            packed.extractall(folder / archive, filter="data")
        for path in (folder / archive).rglob("input.xml"):
            if "old" in path.parts or not (path.parent / "run.out").exists():
                continue
            run = read_input(path)
            origin.begin(run)
            if (path.parent / "RESTART").exists() and "finished" in path.parts:
                origin.seal(run)


# --- mutations ----------------------------------------------------------------------------------


def mutate_bytes(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    a = rng.randrange(len(data) + 1)
    b = min(len(data), a + rng.choice((1, 8, 200)))
    match rng.randrange(6):
        case 0 if data:
            data[a % len(data)] ^= 1 << rng.randrange(8)
        case 1:
            del data[a:b]
        case 2:
            del data[a:]
        case 3:
            data[a:a] = data[a:b]
        case 4:
            data[a:a] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 100))))
        case _:
            digits = [k for k, c in enumerate(data) if chr(c).isdigit()] or [0]
            if data:
                data[rng.choice(digits)] = ord(str(rng.randrange(10)))
    path.write_bytes(data)


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**30, 1e300, 0.5, "", "x", "../up", "λ\n", [], {}, [1, [2]], [None],
)  # fmt: skip


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in it."""
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    for key in list(keys):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _places(node[key])


def mutate_json(path: Path, rng: random.Random) -> None:
    try:
        content = json.loads(path.read_text())
        node, key = rng.choice(list(_places(content)))
    except (ValueError, IndexError, AttributeError, TypeError):
        return mutate_bytes(path, rng)
    match rng.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[f"{key}x"] = node.pop(key)
        case 2 if type(node[key]) in (int, float):
            node[key] *= rng.choice((-1, 1.001, 1e6))
        case _:
            node[key] = rng.choice(VALUES)
    path.write_text(json.dumps(content, ensure_ascii=rng.random() < 0.5))
    return None


def mutate_xml(path: Path, rng: random.Random) -> None:
    text = path.read_text()
    elements = list(re.finditer(r"<(\w+)[^<>]*>[^<>]*</\1>", text))
    attributes = list(re.finditer(r'(\w+)=(["\'])(.*?)\2', text))
    tags = list(re.finditer(r"<(\w+)", text))
    match rng.randrange(6):
        case 0:
            m = rng.choice(elements)
            text = text[: m.start()] + text[m.end() :]
        case 1:
            m = rng.choice(elements)
            text = text[: m.end()] + m[0] + text[m.end() :]
        case 2:
            m = rng.choice(elements)
            new = rng.choice(("0", "-1", "1e9", "x", "", "[1,2]", "{a: b}", "7", "&#0;", "True"))
            text = text[: m.start()] + re.sub(r">[^<>]*<", f">{new}<", m[0], count=1)
            text += path.read_text()[m.end() :]
        case 3:
            m = rng.choice(attributes)
            text = text[: m.start(3)] + rng.choice(("", "x", "-1", "7", "nve")) + text[m.end(3) :]
        case 4:
            m = rng.choice(attributes)
            text = text[: m.start()] + text[m.end() :]
        case _:
            m = rng.choice(tags)
            text = re.sub(rf"(</?){m[1]}\b", rf"\1{m[1]}x", text)
    path.write_text(text)


def spoil_file(path: Path, rng: random.Random) -> None:
    """Missing, a folder, a link to nowhere or to itself, unreadable (which root does not feel)."""
    match rng.randrange(5):
        case 0:
            path.chmod(0)
            return
        case 1:
            path.unlink()
            path.mkdir()
        case 2:
            path.unlink()
            path.symlink_to("nowhere")
        case 3:
            path.unlink()
            path.symlink_to(path.name)
        case _:
            path.unlink()


def mutate(folder: Path, rng: random.Random) -> tuple[str, str]:
    """Change one file below *folder*; its name and how."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix not in _LEFT_ALONE]
    # rows are many and alike: inputs and records as often as them
    telling = [f for f in files if f.suffix in (".xml", ".json") or f.name.startswith("RESTART")]
    path = rng.choice(rng.choice((files, telling or files)))
    ways: dict[str, Callable[[Path, random.Random], None]] = {"bytes": mutate_bytes}
    if path.suffix == ".json":
        ways["JSON"] = mutate_json
    elif path.suffix == ".xml" or path.name.startswith(("RESTART", "run.checkpoint")):
        ways["XML"] = mutate_xml
    ways["file"] = spoil_file
    kind = rng.choice(list(ways))
    ways[kind](path, rng)
    return str(path.relative_to(folder)), kind


# --- commands -----------------------------------------------------------------------------------


def words(command: str, folder: Path) -> list[str]:
    if command != "prepare":
        out = ["--out", str(folder / "out")] if command != "run" else []
        return [command, str(folder / "run"), *out]
    options = "--alchemy Cu->Au --temperature 300 --timestep 2 --equilibrate 40 --switch 80"
    target = [str(folder / "cu.xyz"), str(folder / "new"), "--model", str(folder / "osc.json")]
    return ["prepare", "switch-nvt", *target, *options.split(), "--cycles", "2"]


class Stopped(Exception):
    """A server has loaded its input."""


def _instead_of_processes() -> None:
    """A server runs in this process until its first step; clients and pictures are left out."""

    def start(command: list[str], log: Path, threads: int) -> None:
        if command[0] == "server":
            restart = command[command.index("--restart") + 1] if "--restart" in command else None
            serve.serve(command[1], restart=restart and Path(restart), sockets_prefix=command[3])
        raise Stopped

    def stop(*args: object) -> None:
        os._exit(0)

    children.start = start
    serve.run_to_the_end = stop
    analysis.save_plots = lambda *args: []
    analysis.write_workflow = lambda found, out: [] if out is None else [out]


def call(command: list[str], log: Path) -> tuple[int | None, str]:
    """Exit status (None: it did not end) and output of ``alchemdriver COMMAND``."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(out, number)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            sys.argv = ["alchemdriver", *command]
            _instead_of_processes()
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        except Stopped:
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            log.with_suffix(".modules").write_text("\n".join(sorted(sys.modules)))
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + LIMIT
    while True:
        ended, how = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(how), log.read_text(errors="replace")
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None, log.read_text(errors="replace")
        time.sleep(0.005)


def _load(listed: Path) -> None:
    """Import here what a command imported, so that the next ones find it."""
    for name in listed.read_text().split("\n"):
        if name not in sys.modules and name.split(".")[0] not in ("torch", "__main__"):
            with contextlib.suppress(Exception):
                __import__(name)


def numbers(folder: Path, text: str) -> Any:
    """What a command said: the result that it wrote, or what it printed, without paths."""
    for place in (folder / "out" / "result.json", folder / "run" / "result.json"):
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(place.read_text())
            if "totals" in content:
                return {k: content.get(k) for k in ("totals", "terms", "pooled", "integral")}
    return re.findall(r"-?\d+\.\d+", text)


def warnings_in(folder: Path) -> list[str]:
    for place in (folder / "out" / "result.json", folder / "run" / "result.json"):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(place.read_text()).get("warnings")
            if isinstance(found, list):
                return found
    return []


def _fresh(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def wrong_with(
    status: int | None, text: str, same: bool, edited_by_hand: bool, more: bool
) -> str | None:
    """What must not happen, in words; None if it did not."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    if status is None:
        return "no end"
    if "Traceback" in text or status == 70:
        return "traceback"
    if status < 0:
        return f"signal {-status}"
    if status not in (0, 2):
        return f"exit status {status}"
    if status == 2 and len(lines) != 1:
        return f"{len(lines)} lines of error"
    said = more or re.search("warning|not done", text, re.IGNORECASE)
    if status == 0 and not (same or edited_by_hand or said):
        return "other numbers in silence"
    return None


def campaign(folder: Path, number: int, seed: int) -> dict[str, Any]:
    """*number* mutants; what came of them.  Those that went wrong stay in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    unpack(folder / "whole")
    work, log = folder / "work", folder / "log"
    expected = {}
    for case, (archive, part, commands) in CASES.items():
        for command in commands:
            _fresh(folder / "whole" / archive / part, work)
            status, text = call(words(command, work), log)
            assert status == 0, (case, command, text)
            _load(log.with_suffix(".modules"))
            expected[case, command] = numbers(work, text), warnings_in(work)
    came: Counter[str] = Counter()
    faults = []
    for k in range(number):
        rng = random.Random(seed * 1_000_003 + k)
        case = rng.choice(list(CASES))
        archive, part, commands = CASES[case]
        command = rng.choice(commands)
        _fresh(folder / "whole" / archive / part, work)
        name, kind = mutate(work if command == "prepare" else work / "run", rng)
        status, text = call(words(command, work), log)
        same = numbers(work, text) == expected[case, command][0]
        more = warnings_in(work) != expected[case, command][1]
        free = command == "prepare" or case.startswith("half") or Path(name).name in _BY_HAND
        wrong = wrong_with(status, text, same, free, more)
        came[f"{command}: {'refused' if status == 2 else 'the same' if same else 'said'}"] += 1
        came[f"changed: {kind}"] += 1
        if wrong is not None:
            kept = folder / f"mutant-{k}"
            _fresh(work, kept)
            faults.append({"mutant": k, "case": case, "command": command, "file": name,
                           "by": kind, "wrong": wrong, "said": text[-600:]})  # fmt: skip
    return {
        "number": number,
        "seed": seed,
        "came of them": dict(sorted(came.items())),
        "wrong": faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = campaign(args.folder.resolve(), args.number, args.seed)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
