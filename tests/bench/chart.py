"""A chart per table, as SVG: a panel per measure, a bar per server, a whisker from the least to the most."""

from html import escape

from servers import NAMES

COLOURS = {
    "tidings": "#0f766e",
    "memory": "#5eaaa3",
    "nchan": "#b45309",
    "plain": "#6d28d9",
    "ceiling": "#64748b",
    "mercure": "#be185d",
    "centrifugo": "#1d4ed8",
}
INK, FAINT, LINE = "#1e293b", "#64748b", "#e2e8f0"
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\""

WIDTH = 880
MARGIN = 24
GUTTER = 36
PANEL = (WIDTH - 2 * MARGIN - GUTTER) // 2
NAME = 112  # the servers' names
VALUE = 74  # the figure behind a bar
BAR, STEP = 14, 22
HEAD = 46


def draw(title, panels):
    """`panels`: (label, whether more is better, [(server, median, least, most, text, before)])."""
    columns = [[], []]
    heights = [0, 0]
    for panel in panels:
        shorter = heights.index(min(heights))
        columns[shorter].append((heights[shorter], panel))
        heights[shorter] += HEAD + STEP * len(panel[2]) + 16
    top = 62
    height = top + max(heights) + 26
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" {FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#ffffff" stroke="{LINE}"/>',
        text(MARGIN, 38, title, 19, INK, 600),
    ]
    for number, column in enumerate(columns):
        x = MARGIN + number * (PANEL + GUTTER)
        for y, panel in column:
            out += draw_panel(x, top + y, *panel)
    said = "The line across a bar: the figure committed before. The whisker: least and most of all rounds."
    out.append(text(MARGIN, height - 14, said, 11, FAINT))
    out.append("</svg>\n")
    return "\n".join(out)


def draw_panel(x, y, label, higher, bars):
    better = "more is better" if higher else "less is better"
    out = [text(x, y + 14, fitting(label), 13, INK, 600), text(x, y + 30, better, 11, FAINT)]
    longest = max([most for _, _, _, most, _, _ in bars] + [before or 0 for *_, before in bars]) or 1
    scale = (PANEL - NAME - VALUE) / longest
    left = x + NAME
    y += HEAD - 6
    out.append(f'<line x1="{left}" y1="{y - 2}" x2="{left}" y2="{y + STEP * len(bars) - 6}" stroke="{LINE}"/>')
    for server, median, least, most, figure, before in bars:
        middle = y + BAR / 2
        end = left + max(median * scale, 1.5)
        out.append(text(left - 8, middle + 4, NAMES[server], 12, INK, 600 if server == "tidings" else 400, "end"))
        out.append(f'<rect x="{left}" y="{y}" width="{end - left:.1f}" height="{BAR}" rx="2" fill="{COLOURS[server]}"/>')
        if most > least:
            a, b = left + least * scale, left + most * scale
            path = f"M{a:.1f} {middle - 3}v6M{a:.1f} {middle}H{b:.1f}M{b:.1f} {middle - 3}v6"
            out.append(f'<path d="{path}" stroke="{INK}" stroke-opacity="0.55" fill="none"/>')
        if before is not None:
            at = left + before * scale
            out.append(f'<path d="M{at:.1f} {y - 2}v{BAR + 4}" stroke="#dc2626" stroke-width="2"/>')
        behind = max(end, left + most * scale, left + (before or 0) * scale) + 6
        out.append(text(behind, middle + 4, figure, 12, INK))
        y += STEP
    return out


def fitting(label):
    """Cut to the panel's width."""
    most = PANEL // 7
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def text(x, y, content, size, colour, weight=400, anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="{anchor}">{escape(content)}</text>'
    )
