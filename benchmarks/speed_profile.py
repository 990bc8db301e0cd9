"""The figure of docs/evaluator.md: where an evaluation spends its time, and what bounds it.

python benchmarks/speed_profile.py    # reads speed.json, writes docs/images/evaluator-profile.png
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def draw_shares(axis, rows: list[dict]):
    """A bar for each row, cut into the shares of its time; returns *axis*."""
    names = [f"{row['model']}, {row['system']}" for row in rows]
    left = [0.0] * len(rows)
    for part in rows[0]["shares"]:
        widths = [100 * row["shares"][part] for row in rows]
        axis.barh(names, widths, left=left, label=part)
        for n, width in enumerate(widths):
            axis.text(left[n] + width / 2, n, f"{width:.0f}", ha="center", va="center")
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.invert_yaxis()
    axis.set_xlabel("share of one evaluation, %")
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.35, 1.0), frameon=False)
    return axis


def draw_bounds(axis, rows: list[dict]):
    """Measured milliseconds and both bounds of the same rows; returns *axis*."""
    kinds = {
        "measured": "ms",
        "bound from traffic, cache empty": "bound from traffic, ms",
        "bound from flops": "bound from flops, ms",
    }
    height = 0.8 / len(kinds)
    for k, (label, key) in enumerate(kinds.items()):
        places = [n + (k - 1) * height for n in range(len(rows))]
        axis.barh(places, [row[key] for row in rows], height, label=label)
    axis.set_yticks(range(len(rows)), [])
    axis.invert_yaxis()
    axis.set_xlabel("ms")
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return axis


def main() -> None:
    rows = json.loads((HERE / "speed.json").read_text())["profile"]["rows"]
    rows = [row for row in rows if row["dtype"] == "float64"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    draw_shares(left, rows)
    draw_bounds(right, rows)
    figure.savefig(HERE.parent / "docs" / "images" / "evaluator-profile.png", dpi=120)


if __name__ == "__main__":
    main()
