"""HTML: the only module that writes a tag, so that whatever comes from outside is escaped."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from string import Template
from typing import Final

_PAGE: Final = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #111; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { margin-bottom: 0.2em; }
h2 { margin-top: 2.2em; border-bottom: 1px solid #999; }
nav a { margin-right: 1em; color: inherit; }
.verdict { border: 2px solid #111; padding: 0.6em 1em; font-weight: bold; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; font-size: 0.85em;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-style: italic; padding-bottom: 0.3em; }
th { text-align: left; vertical-align: bottom; border-bottom: 1px solid #111; }
th, td { padding: 0.15em 0.9em 0.15em 0; }
td { vertical-align: top; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
.n { text-align: right; white-space: nowrap; }
img { max-width: 100%; }
figure { margin: 1em 0; break-inside: avoid; }
figcaption { font-style: italic; font-size: 0.85em; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #999; padding: 0.8em;
  font-size: 0.8em; }
@media print {
  body { font-size: 10pt; max-width: none; margin: 0; }
  nav { display: none; }
  .wide { overflow: visible; }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
}
</style>
</head>
<body>
$body
</body>
</html>
""")
# No script runs and nothing is loaded, whatever the text on the page may try.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

Part = tuple[str, str]
"""A section: its title and its HTML."""


def page(title: str, head: str, sections: Sequence[Part]) -> str:
    """Return a whole page: a title, what stands first, the sections with links to each."""
    links = [f'<a href="#s{i}">{_safe(name)}</a>' for i, (name, _) in enumerate(sections)]
    body = [f"<h1>{_safe(title)}</h1>", head, f"<nav>{' '.join(links)}</nav>"]
    for i, (name, content) in enumerate(sections):
        body.append(f'<section id="s{i}">\n<h2>{_safe(name)}</h2>\n{content}\n</section>')
    return _PAGE.substitute(title=_safe(title), policy=_POLICY, body="\n".join(body))


def subtitle(text: str) -> str:
    """Return a title within a section."""
    return f"<h3>{_safe(text)}</h3>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{_safe(text)}</p>"


def verdict(text: str) -> str:
    """Return a paragraph that nobody overlooks."""
    return f'<p class="verdict">{_safe(text)}</p>'


def verbatim(text: str) -> str:
    """Return text with its line breaks and blanks."""
    return f"<pre>{_safe(text)}</pre>"


def picture(png: bytes, name: str, words: str) -> str:
    """Return a picture, kept in the page itself, with its name and a caption."""
    data = base64.b64encode(png).decode()
    image = f'<img alt="{_safe(name)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{_safe(words)}</figcaption></figure>"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return a table; columns of numbers stand to the right."""
    kept = [tuple(row) for row in rows]
    marks = [' class="n"' if _numeric(column) else "" for column in zip(*kept, strict=True)]
    marks = marks or [""] * len(heads)
    titles = [f"<th{mark}>{_safe(name)}</th>" for name, mark in zip(heads, marks, strict=True)]
    lines = [
        "".join(
            f"<td{mark}>{_safe(value_text(value))}</td>"
            for value, mark in zip(row, marks, strict=True)
        )
        for row in kept
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    words = f"<caption>{_safe(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{words}<thead><tr>{"".join(titles)}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def value_text(value: object) -> str:
    """Return a value for people: numbers to four significant digits, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.4g}"
    return str(value)


def _numeric(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float | None) for value in values)


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
