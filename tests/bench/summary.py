"""
Show all ratios of bench.json in one table and, beside their targets, in a picture.

    python tests/bench/summary.py [--out FILE]

The picture has the name of the file and ends in .png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from support import Target, show

TICKS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10)


def targets(measured: dict[str, Any]) -> list[Target]:
    """The ratios of a file, but for what an older version has left in it."""
    parts = set(Target._fields) - {"key"}
    return [
        Target(key, **ratio) for key, ratio in measured["ratios"].items() if parts == ratio.keys()
    ]


def draw(found: list[Target], path: Path) -> None:
    """Draw how far each ratio is beyond its target, or short of it."""
    picture = Figure(figsize=(9, 1 + 0.3 * len(found)), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    rows = found[::-1]
    colours = ["tab:blue" if target.reached else "tab:orange" for target in rows]
    shares = [min(max(target.share, TICKS[0]), TICKS[-1]) for target in rows]
    axes.barh([t.key for t in rows], [share - 1 for share in shares], left=1, color=colours)
    axes.axvline(1, color="black")
    axes.set_xscale("log")
    axes.set_xticks(TICKS, map(str, TICKS))
    axes.minorticks_off()
    axes.margins(y=0.01)
    axes.set_xlabel("times as good as the target, at most 10")
    picture.savefig(path, dpi=120, format="png")


def main() -> None:
    """Show what the benchmarks left in the file."""
    parser = argparse.ArgumentParser(description="Show what was measured.")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    options, _ = parser.parse_known_args()  # those of the benchmarks come along
    found = targets(json.loads(options.out.read_text()))
    show(found)
    draw(found, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
