"""The figure of docs/evaluator.md: where an evaluation spends its time.

python benchmarks/speed_profile.py    # reads speed.json, writes docs/images/evaluator-profile.png
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PARTS = ("sum over neighbours", "its backward", "polynomial with gradient", "rest")


def draw(axis, data: dict):
    """Bars of the shares of time, and of the flops of the first system; returns *axis*."""
    shares = {
        name: {**parts, "rest": 1.0 - sum(parts.values())}
        for name, parts in data["profile"].items()
        if name != "what"
    }
    flops = data["Gflop, CsPbI3 135, small, float64"]
    total = sum(flops.values())
    shares["CsPbI3 135, flops only"] = {part: value / total for part, value in flops.items()}
    left = dict.fromkeys(shares, 0.0)
    for part in PARTS:
        widths = [100 * parts[part] for parts in shares.values()]
        axis.barh(list(shares), widths, left=list(left.values()), label=part)
        for name, width in zip(shares, widths, strict=True):
            if width > 4:
                axis.text(left[name] + width / 2, name, f"{width:.0f}", ha="center", va="center")
            left[name] += width
    axis.invert_yaxis()
    axis.set_xlabel("share of one evaluation, %")
    axis.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.4, -0.25), frameon=False)
    return axis


def main() -> None:
    data = json.loads((HERE / "speed.json").read_text())
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    draw(axis, data)
    figure.savefig(HERE.parent / "docs" / "images" / "evaluator-profile.png", dpi=120)


if __name__ == "__main__":
    main()
