"""Plots for the documentation, as PNG files."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
_INCHES = (5.5, 3.4)
_DOTS_PER_INCH = 160
_MARKERS = "os^vDP*X<>ph"


def lines(path: Path, x: str, y: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Named lines through points (x, y), both axes logarithmic, so that growth shows as a slope."""
    figure = Figure(_INCHES, layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.legend(frameon=False)
    _save(figure, path)


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
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=7)
    _save(figure, path)


def scatter(path: Path, x: Sequence[str], y: str, series: Mapping[str, Sequence[tuple[float, ...]]]) -> None:
    """Named points (x…, y), joined in their order, in a panel for each x, which is logarithmic."""
    figure = Figure((2 * _INCHES[0], 1.3 * _INCHES[1]), layout="constrained")
    panels = figure.subplots(1, len(x), sharey=True, squeeze=False)[0]
    for place, (axes, label) in enumerate(zip(panels, x, strict=True)):
        for (name, points), marker in zip(series.items(), itertools.cycle(_MARKERS)):
            across, up = [point[place] for point in points], [point[-1] for point in points]
            axes.plot(across, up, marker=marker, markersize=5, linewidth=0.8, alpha=0.8, label=name)
        axes.set(xscale="log", xlabel=label)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set(ylabel=y)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
