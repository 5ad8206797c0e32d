"""Plots for the documentation, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
_INCHES = (5.5, 3.4)
_DOTS_PER_INCH = 160


def lines(path: Path, x: str, y: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Named lines through points (x, y), both axes logarithmic, so that growth shows as a slope."""
    figure = Figure(_INCHES, layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def bars(path: Path, y: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Named groups of named bars; every group has the same names."""
    figure = Figure(_INCHES, layout="constrained")
    axes = figure.subplots()
    names = list(next(iter(groups.values())))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        left = [group + (place - (len(names) - 1) / 2) * width for group in range(len(groups))]
        drawn = axes.bar(left, [values[name] for values in groups.values()], width, label=name)
        axes.bar_label(drawn, fmt="{:.1f}", fontsize=7)
    axes.set(ylabel=y, xticks=range(len(groups)), xticklabels=list(groups))
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
