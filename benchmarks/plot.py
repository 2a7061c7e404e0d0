"""Pictures of what was measured.

    python benchmarks/plot.py soak soak.json docs/images/soak.svg
    python benchmarks/plot.py results benchmarks/results.json docs/images

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

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.contestants.registry import ALL  # noqa: E402 - after the path is right
from benchmarks.measures import GROUPS, Row  # noqa: E402
from benchmarks.report import figure  # noqa: E402
from benchmarks.results import Results  # noqa: E402

WINDOW: Final = 5
"""Samples around each one whose median is drawn."""
INK: Final = {"runs": "#1b6ca8", "dead": "#b5442e", "size": "#5b7f3a"}
OURS, LIMIT, PEER = "#1b6ca8", "#9aa5ad", "#d0a24c"
DRAWN: Final = ("many-1", "one-10", "drain-1", "bare-1", "enqueue-bulk", "start-50")
"""The measures of which there is a picture."""


def main() -> None:
    """Read the command line, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("soak", "results"), help="what the samples are of")
    parser.add_argument("samples", type=Path, help="what soak.py or bench.py has saved")
    parser.add_argument("picture", type=Path, help="an SVG file to write; of results, a folder of them")
    options = parser.parse_args()
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("plot.py draws with matplotlib: pip install 'perdure[bench]'")
    mpl.use("svg")
    # Text as text, so that it can be searched and the file stays small; and the same file for the same samples.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "perdure", "font.family": "sans-serif"})
    if options.what == "soak":
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        draw(json.loads(options.samples.read_text()), options.picture)
        return
    results = Results.load(options.samples)
    options.picture.mkdir(parents=True, exist_ok=True)
    for group in GROUPS:
        for row in group.rows:
            if row.key in DRAWN:
                bars(results, group.title, row, options.picture / f"{row.key}.svg")


def bars(results: Results, title: str, row: Row, picture: Path) -> None:
    """Draw a bar for the best of each contestant, on a logarithmic scale."""
    from matplotlib import pyplot as plt

    best = {contestant.name: results.best(row, contestant.name) for contestant in ALL}
    found = sorted(
        ((name, one[1]) for name, one in best.items() if one is not None),
        key=lambda pair: pair[1],
        reverse=not row.more_is_better,
    )
    limits = {contestant.name for contestant in ALL if contestant.limit}
    inks = [OURS if name == "perdure" else LIMIT if name in limits else PEER for name, _ in found]
    plot, axes = plt.subplots(figsize=(8, 0.6 + 0.32 * len(found)), layout="constrained")
    drawn = axes.barh([name for name, _ in found], [value for _, value in found], color=inks, height=0.7)
    axes.bar_label(drawn, [figure(value) for _, value in found], padding=4)
    axes.set_xscale("log")
    axes.set(title=f"{title}: {row.label}, {row.unit} ({'more' if row.more_is_better else 'less'} is better)")
    axes.title.set_fontsize(10)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.25)
    plot.savefig(picture, metadata={"Date": None, "Creator": None})
    plt.close(plot)


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
