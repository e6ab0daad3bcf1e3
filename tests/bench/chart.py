"""A chart per table, as SVG: a panel per measure, a bar per server, a whisker from the least to the most."""

from dataclasses import dataclass
from html import escape

COLOURS = {
    "tidings": "#0f766e",
    "memory": "#5eaaa3",
    "nchan": "#b45309",
    "plain": "#6d28d9",
    "ceiling": "#64748b",
    "mercure": "#be185d",
    "centrifugo": "#1d4ed8",
    "centrifugo-redis": "#1d4ed8",
    "redis-always": "#0f766e",
    "redis-everysec": "#5eaaa3",
    "nats-always": "#0f766e",
    "nats": "#5eaaa3",
    "rabbitmq": "#0f766e",
}
# What a figure is compared with.
OTHER = "#64748b"
INK, FAINT, LINE = "#1e293b", "#64748b", "#e2e8f0"
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\""

WIDTH = 880
MARGIN = 24
GUTTER = 36
PANEL = (WIDTH - 2 * MARGIN - GUTTER) // 2
NAME = 120  # the bars' names
VALUE = 74  # the figure behind a bar
BAR, STEP = 14, 22
HEAD = 46


@dataclass
class Bar:
    """A figure, as a bar."""

    name: str
    # Whose colour it has.
    server: str
    median: float
    least: float
    most: float
    # The median in words.
    figure: str
    # What was committed before.
    before: float | None


def draw(title, panels):
    """`panels`: (label, whether more is better) -> bars."""
    heights = [0, 0]
    placed = []
    for (label, higher), bars in panels.items():
        column = heights.index(min(heights))
        placed.append((column, heights[column], label, higher, bars))
        heights[column] += HEAD + STEP * len(bars) + 16
    top = 62
    height = top + max(heights) + 26
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" {FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#ffffff" stroke="{LINE}"/>',
        text(MARGIN, 38, title, 19, INK, 600),
    ]
    for column, y, label, higher, bars in placed:
        out += draw_panel(MARGIN + column * (PANEL + GUTTER), top + y, label, higher, bars)
    bars = [bar for panel in panels.values() for bar in panel]
    said = ["Red: the figure committed before."] if any(bar.before is not None for bar in bars) else []
    said += ["The whisker: the least and the most of all rounds."] if any(bar.most > bar.least for bar in bars) else []
    out.append(text(MARGIN, height - 14, " ".join(said), 11, FAINT))
    out.append("</svg>\n")
    return "\n".join(out)


def draw_panel(x, y, label, higher, bars):
    better = "more is better" if higher else "less is better"
    out = [text(x, y + 14, label, 13, INK, 600), text(x, y + 30, better, 11, FAINT)]
    longest = max(max(bar.most, bar.before or 0) for bar in bars) or 1
    scale = (PANEL - NAME - VALUE) / longest
    left = x + NAME
    y += HEAD - 6
    out.append(f'<line x1="{left}" y1="{y - 2}" x2="{left}" y2="{y + STEP * len(bars) - 6}" stroke="{LINE}"/>')
    for bar in bars:
        middle = y + BAR / 2
        end = left + max(bar.median * scale, 1.5)
        weight = 600 if bar.server == "tidings" else 400
        out.append(text(left - 8, middle + 4, bar.name, 12, INK, weight, "end"))
        size = f'width="{end - left:.1f}" height="{BAR}"'
        out.append(f'<rect x="{left}" y="{y}" {size} rx="2" fill="{COLOURS.get(bar.server, OTHER)}"/>')
        if bar.most > bar.least:
            a, b = left + bar.least * scale, left + bar.most * scale
            path = f"M{a:.1f} {middle - 3}v6M{a:.1f} {middle}H{b:.1f}M{b:.1f} {middle - 3}v6"
            out.append(f'<path d="{path}" stroke="{INK}" stroke-opacity="0.55" fill="none"/>')
        if bar.before is not None:
            at = left + bar.before * scale
            out.append(f'<path d="M{at:.1f} {y - 2}v{BAR + 4}" stroke="#dc2626" stroke-width="2"/>')
        behind = max(end, left + bar.most * scale, left + (bar.before or 0) * scale) + 6
        out.append(text(behind, middle + 4, bar.figure, 12, INK))
        y += STEP
    return out


def text(x, y, content, size, colour, weight=400, anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="{anchor}">{escape(content)}</text>'
    )
