"""The tables of docs/evaluator.md, section 5: measured, written, drawn.

python benchmarks/speed.py            # alchemdriver bench on one thread, then the tables: an hour
python benchmarks/speed.py --tables   # only the tables and the figure, from speed.json
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
RESULT = HERE / "speed.json"
PAGE = HERE.parent / "docs" / "evaluator.md"
BEGIN, END = "<!-- tables of benchmarks/speed.json -->", "<!-- end of tables -->"
RATIOS = {  # column: where it stands in a row
    "stock plain / ours": ("over alchemical", "stock"),
    "expanded graph / ours": ("over alchemical", "expanded"),
    "as many plain stock as ends / ours": ("over alchemical", "linear, stock"),
    "as many plain of ours / ours": ("over alchemical", "linear"),
    "stock / ours, both plain": ("over plain", "stock"),
    "symmetrix-xl / ours, both plain": ("over plain", "symmetrix-xl"),
}


def measure() -> None:
    """Everything anew; what was there is replaced when all is done."""
    new = RESULT.with_suffix(".new.json")
    new.unlink(missing_ok=True)
    one = os.environ | {"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}
    two = os.environ | {"GOMP_SPINCOUNT": "20000"}  # as `alchemdriver run` sets it
    command = [sys.executable, "-m", "alchemdriver", "bench", "--out", str(new)]
    subprocess.run(command, env=one, check=True)
    parts = ["--parts", "threads", "--models", "demo,small"]
    subprocess.run([*command, *parts], env=two, check=True)
    new.replace(RESULT)


def tables(result: dict) -> str:
    """Markdown of every part that *result* has."""
    parts = [_evaluations(result["table"])] if "table" in result else []
    parts += [
        _rows(title, result[part]["rows"], columns)
        for part, title, columns in OTHERS
        if part in result
    ]
    return "\n\n".join(parts)


def _evaluations(part: dict) -> str:
    where, rows = part["environment"], part["rows"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = [
        f"{where['hardware']}, {where['threads']} thread, {where['date']}; medians of "
        f"{part['rounds']} rounds of process time, float32 / float64; quartiles are in the file.",
        "",
        f"| | ours, ms | {' | '.join(RATIOS)} |",
        "|---|---|" + "---|" * len(RATIOS),
    ]
    for model in models:
        lines.append(f"| **{model}** |" + " |" * (len(RATIOS) + 1))
        mine = [row for row in rows if row["model"] == model]
        for system in dict.fromkeys(row["system"] for row in mine):
            of_dtypes = [row for row in mine if row["system"] == system]
            cells = [_pair(row["ms"]["alchemical"] for row in of_dtypes)]
            for group, name in RATIOS.values():
                cells.append(_pair(row[group].get(name) for row in of_dtypes))
            lines.append(f"| {system} ({of_dtypes[0]['ends']}) | {' | '.join(cells)} |")
    lines += ["", "In brackets: states with weight."]
    return "\n".join(lines)


def _rows(title: str, rows: list[dict], columns: dict[str, str]) -> str:
    """One line for each row, with the *columns* that are asked for."""
    lines = [f"{title}:", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append(f"| {' | '.join(_text(row.get(key)) for key in columns.values())} |")
    return "\n".join(lines)


OTHERS = (
    (
        "size",
        "Time per atom, CsPbI3, 1080 over 135 atoms",
        {"model": "model", "precision": "dtype", "per atom": "per_atom"},
    ),
    (
        "memory",
        "Peak memory of an evaluation, CsPbI3, 135 atoms",
        {"model": "model", "precision": "dtype", "MB": "MB", "over stock": "over_stock"},
    ),
    (
        "step",
        "A step through i-PI over the evaluation in it, CsPbI3, 135 atoms",
        {
            "model": "model",
            "precision": "dtype",
            "socket": "mode",
            "step / evaluation": "step_over_evaluation",
            "evaluation, ms": "evaluation, ms",
            "rest, ms": "rest, ms",
        },
    ),
    (
        "threads",
        "Wall time of one thread over that of two, CsPbI3, 320 atoms",
        {
            "model": "model",
            "precision": "dtype",
            "one / two": "one_over_more",
            "same bits": "same bits",
        },
    ),
)


def _pair(values: Iterable[dict | None]) -> str:
    found = [f"{value['median']:.3g}" if value else "–" for value in values]
    return "–" if set(found) == {"–"} else " / ".join(found)


def _text(value: object) -> str:
    return f"{value['median']:.3g}" if isinstance(value, dict) else str(value)


def write(text: str, page: str) -> str:
    """*page* with *text* between the marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if "--tables" not in sys.argv[1:]:
        measure()
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    PAGE.write_text(write(tables(result), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    import speed_profile

    speed_profile.main()
