"""What `soak.py --save` has measured, as a picture: throughput, dead rows and sizes over time.

    python benchmarks/plot.py soak.json docs/images/soak.svg

Needs matplotlib (`pip install 'perdure[bench]'`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Final

WINDOW: Final = 5
"""Samples around each one whose median is drawn."""
INK: Final = {"runs": "#1b6ca8", "dead": "#b5442e", "size": "#5b7f3a"}


def main() -> None:
    """Read the command line, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("samples", type=Path, help="what soak.py has saved")
    parser.add_argument("picture", type=Path, help="an SVG file to write")
    options = parser.parse_args()
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("plot.py draws with matplotlib: pip install 'perdure[bench]'")
    mpl.use("svg")
    # Text as text, so that it can be searched and the file stays small; and the same file for the same samples.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "perdure", "font.family": "sans-serif"})
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(json.loads(options.samples.read_text()), options.picture)


def draw(samples: list[dict[str, Any]], picture: Path) -> None:
    """Draw throughput above, and below it dead rows of `live` with the size of all tables."""
    from matplotlib import pyplot as plt

    minutes = [sample["at"] / 60 for sample in samples]
    pairs = itertools.pairwise(samples)
    rates = [(after["ended"] - before["ended"]) / (after["at"] - before["at"]) for before, after in pairs]
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    above.plot(minutes[1:], rates, color=INK["runs"], alpha=0.3, linewidth=0.8)
    above.plot(minutes[1:], smooth(rates), color=INK["runs"], linewidth=1.8)
    above.set(ylabel="runs ended a second", ylim=(0, None))
    below.plot(minutes, [sample["dead"]["live"] / 1e6 for sample in samples], color=INK["dead"])
    below.set(xlabel="minutes", ylabel="dead rows in live, millions", ylim=(0, None))
    below.yaxis.label.set_color(INK["dead"])
    right = below.twinx()
    right.plot(minutes, [sum(sample["size"].values()) / 1e6 for sample in samples], color=INK["size"])
    right.set(ylabel="all tables, MB", ylim=(0, None))
    right.yaxis.label.set_color(INK["size"])
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.margins(x=0)
    figure.savefig(picture, metadata={"Date": None, "Creator": None})


def smooth(values: list[float]) -> list[float]:
    """The median of what is around each value."""
    return [
        statistics.median(values[max(0, place - WINDOW // 2) : place + WINDOW // 2 + 1])
        for place in range(len(values))
    ]


if __name__ == "__main__":
    main()
