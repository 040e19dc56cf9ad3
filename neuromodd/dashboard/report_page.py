"""The page of a recording: one HTML file with the picture and the report, which asks nobody for anything."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from neuromodd.dashboard import report

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
"""No script, no request; the picture's own styles, and its images, which are in the file."""

STYLE = """\
:root { color-scheme: light dark; --page: #ffffff; --ink: #1a1a1a; --faint: #5f5f5f; --rule: #d9d9d9; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --ink: #e8e8e8; --faint: #a3a8ae; --rule: #3a3f45; }
}
body { margin: 0 auto; max-width: 1240px; padding: 1.5rem 1rem 3rem;
  background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0 0 .35rem; }
figure { margin: 0 0 1.5rem; padding: .5rem; background: #ffffff; border-radius: 6px; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 760px; height: auto; }
main { display: grid; gap: 1.6rem 2.4rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); }
section { min-width: 0; overflow-x: auto; }
.note { color: var(--faint); font-weight: 400; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0;
  border-bottom: 1px solid var(--rule); }
th { font-weight: 600; }
th, thead + tbody td { white-space: nowrap; }
@media print { figure { padding: 0; } section { break-inside: avoid; } }
"""


def escaped(text: str) -> str:
    """A text as HTML and XML show it; what XML can't hold is a question mark."""
    return html.escape("".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text))


def page(told: Mapping[str, Any], svg: str) -> str:
    """The page.

    Args:
        told: the facts of the report.
        svg: the picture, a document of its own.
    """
    picture = svg[svg.index("<svg") :]
    title = f"neuromodd: {report.title(told)}"
    sections = "\n".join(_section(table) for table in report.tables(told))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escaped(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
<figure>
{picture}</figure>
<main>
{sections}
</main>
</body>
</html>
"""


def _section(table: report.Table) -> str:
    note = f' <span class="note">{escaped(table.note)}</span>' if table.note else ""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in table.head)
    lines = [f"<section>\n<h2>{escaped(table.title)}{note}</h2>\n<table>"]
    if head:
        lines.append(f"<thead><tr>{head}</tr></thead>")
    lines.append("<tbody>")
    columns = max(map(len, table.rows))
    for row in table.rows:
        first, *rest = row
        if not rest and columns > 1:
            lines.append(f'<tr><td colspan="{columns}">{escaped(first)}</td></tr>')
            continue
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escaped(first)}</th>{cells}</tr>')
    lines.append("</tbody>\n</table>\n</section>")
    return "\n".join(lines)
