"""One style for every figure of the notebooks: fit to print, and for every kind of colour vision."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from cycler import cycler
from matplotlib.axes import Axes

# Okabe and Ito's palette, without its yellow, which is faint on white paper.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#111111")
# A line is told by its dashes too.
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
COLUMN_WIDTH = 3.5
"""Inches of a paper's column."""


def use_style() -> None:
    """Set matplotlib's defaults."""
    plt.rcParams.update(
        {
            "figure.figsize": (2 * COLUMN_WIDTH, 2.6),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "savefig.dpi": 300,
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dde2e8",
            "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
            "legend.frameon": False,
        }
    )


def bars(rows: pl.DataFrame, name: str, value: str, *, most: int = 20) -> Axes:
    """A bar for each row, the first on top."""
    shown = rows.head(most)
    axes = _axes(height=0.6 + 0.25 * shown.height)
    axes.barh([str(one) for one in shown[name]], shown[value], color=COLOURS[0])
    axes.invert_yaxis()
    axes.set(xlabel=value)
    axes.grid(visible=False, axis="y")
    return axes


def lines(rows: pl.DataFrame, x: str, y: str, by: str | None = None) -> Axes:
    """A line for each value of `by`."""
    axes = _axes()
    groups = rows.partition_by(by, maintain_order=True) if by else [rows]
    for group in groups:
        label = str(group[by][0]) if by else None
        axes.plot(group[x], group[y], marker="o", markersize=3, label=label)
    axes.set(xlabel=x, ylabel=y)
    if by:
        axes.legend(title=by)
    return axes


def histograms(values: Mapping[str, pl.Series], label: str, *, bins: int = 30) -> Axes:
    """Shares of each group's values, drawn as outlines over each other."""
    axes = _axes()
    known = {name: series.drop_nulls().drop_nans() for name, series in values.items()}
    together = pl.concat([series.cast(pl.Float64).alias("v") for series in known.values()])
    edges = np.histogram_bin_edges(together.to_numpy(), bins)
    for (name, series), colour, dash in zip(known.items(), COLOURS, DASHES, strict=False):
        if len(series):
            axes.hist(
                series.to_numpy(),
                bins=edges.tolist(),
                weights=[1 / len(series)] * len(series),
                histtype="step",
                linewidth=1.5,
                color=colour,
                linestyle=dash,
                label=f"{name} (n = {len(series):,})",
            )
    axes.set(xlabel=label, ylabel="share")
    axes.legend()
    return axes


def stacked(rows: pl.DataFrame, name: str, kind: str, value: str, kinds: Sequence[str]) -> Axes:
    """A bar for each name, in pieces by kind."""
    names = rows[name].unique(maintain_order=True).to_list()
    axes = _axes(height=0.8 + 0.25 * len(names))
    start = [0.0] * len(names)
    for one, colour in zip(kinds, COLOURS, strict=False):
        counts = dict(rows.filter(pl.col(kind) == one).select(name, value).iter_rows())
        widths = [float(counts.get(each, 0)) for each in names]
        axes.barh(names, widths, left=start, color=colour, label=one)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel=value)
    axes.legend()
    return axes


def _axes(height: float | None = None) -> Axes:
    size = None if height is None else (2 * COLUMN_WIDTH, height)
    axes: Axes = plt.subplots(figsize=size)[1]
    return axes
