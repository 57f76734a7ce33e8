"""Small charts as inline SVG: no script, no fetch, readable in print and without colour vision."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

# Okabe and Ito's palette keeps its contrast for every kind of colour vision.
KEPT, REJECTED, LINE = "#0072b2", "#d55e00", "#111111"
WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 14, 26
NUM_BINS = 32

Values = npt.NDArray[np.float64]


def histogram(
    label: str, unit: str, kept: Values, rejected: Values, limits: Sequence[tuple[str, float]]
) -> Markup:
    """Clips per bin, kept below rejected, with the policy's limits drawn in.

    limits: (label, value), such as ("min", 12.0).
    """
    kept, rejected = kept[np.isfinite(kept)], rejected[np.isfinite(rejected)]
    everything = np.concatenate([kept, rejected])
    if not everything.size:
        return Markup('<p class="empty">not measured</p>')
    low, high = _range(everything, [value for _, value in limits])
    edges = np.linspace(low, high, NUM_BINS + 1)
    below = np.histogram(np.clip(kept, low, high), edges)[0]
    above = np.histogram(np.clip(rejected, low, high), edges)[0]
    top = max(1, int((below + above).max()))
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bar = plot_w / NUM_BINS
    parts = []
    for index, (k, r) in enumerate(zip(below, above, strict=True)):
        x = LEFT + index * bar
        kept_h, rejected_h = plot_h * k / top, plot_h * r / top
        base = TOP + plot_h
        parts.append(_bar(x, base - kept_h, bar, kept_h, KEPT))
        parts.append(_bar(x, base - kept_h - rejected_h, bar, rejected_h, REJECTED))
    for side, value in limits:
        place = min(1.0, max(0.0, (value - low) / (high - low)))
        x = LEFT + plot_w * place
        anchor = "end" if place > 0.5 else "start"
        in_sight = low <= value <= high
        if in_sight:
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{TOP + plot_h}" '
                f'stroke="{LINE}" stroke-width="1.5" stroke-dasharray="4 3"/>'
            )
        arrow = "" if in_sight else " →" if place > 0.5 else " ←"
        parts.append(
            f'<text x="{x + (-3 if anchor == "end" else 3):.1f}" y="{TOP - 4}" '
            f'text-anchor="{anchor}">{escape(side)} {_short(value)}{arrow}</text>'
        )
    parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{TOP + plot_h}" y2="{TOP + plot_h}" '
        'stroke="#888"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 10}" text-anchor="start">{_short(low)}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{_short(high)}</text>'
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{top}</text>'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(unit)}</text>"
    )
    median = _short(float(np.median(everything)))
    told = (
        f"{kept.size} kept and {rejected.size} rejected clips" if rejected.size else f"{kept.size}"
    )
    title = f"{label}: {told}, median {median} {unit}"
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def bars(label: str, counts: Sequence[tuple[str, int]]) -> Markup:
    """A bar per name, in the order given, with its count."""
    if not counts:
        return Markup('<p class="empty">not measured</p>')
    row, names_w, counts_w = 20, 110, 60
    height = row * len(counts) + 6
    most = max(1, max(count for _, count in counts))
    parts = []
    for index, (name, count) in enumerate(counts):
        y = 3 + index * row
        width = (WIDTH - names_w - counts_w) * count / most
        parts.append(
            f'<text x="{names_w - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{names_w}" y="{y + 3}" width="{max(0.5, width):.1f}" height="{row - 6}" '
            f'fill="{KEPT}"/>'
            f'<text x="{names_w + width + 6:.1f}" y="{y + 14}">{count:,}</text>'
        )
    title = f"{label}: " + ", ".join(f"{name} {count}" for name, count in counts)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _range(values: Values, limits: Sequence[float]) -> tuple[float, float]:
    """From the 1st to the 99th percentile, widened to show the limits that are not far away."""
    low, high = (float(value) for value in np.percentile(values, [1, 99]))
    reach = high - low or 1.0
    near = [value for value in limits if low - reach <= value <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    pad = (high - low) * 0.04 or 0.5
    return (0.0 if 0 <= low < pad else low - pad), high + pad


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    if height <= 0:
        return ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.5, width - 1):.1f}" '
        f'height="{height:.1f}" fill="{colour}"/>'
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
