"""What reports are made of: one HTML page that needs nothing but itself, tables, figures, words."""

import base64
import html
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

_REFRESH_SECONDS = 30  # How often a page that is still open reloads while a run goes on.

_CSS = """
:root {
  color-scheme: light dark;
  --ink: #1c1f23; --soft: #5b6470; --line: #d9dde3; --page: #fbfbfa; --card: #ffffff;
  --accent: #0072b2; --good: #00704f; --wait: #9a5b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e8ea; --soft: #a3abb5; --line: #3a4149; --page: #16191d; --card: #1f242a;
    --accent: #6cb9ea; --good: #4fd1a5; --wait: #f0b35a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .8rem; padding-bottom: .3rem;
     border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
.state { font-weight: 600; }
.finished { color: var(--good); }
.running { color: var(--wait); }
.warning { margin: 1.5rem 0 0; padding: .4rem 1rem; border-left: .3rem solid var(--wait);
           background: var(--card); }
dl.facts { display: flex; flex-wrap: wrap; margin: 1.5rem -.5rem 0; }
dl.facts div { flex: 1 1 11rem; margin: .5rem; padding: .8rem 1rem; background: var(--card);
               border: 1px solid var(--line); border-radius: .5rem; }
dl.facts dt { font-size: .8rem; color: var(--soft); }
dl.facts dd { margin: .1rem 0 0; font-size: 1.35rem; font-weight: 600;
              overflow-wrap: anywhere; }
dl.facts dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
figure { margin: 1rem 0; padding: .75rem; background: #ffffff; border: 1px solid var(--line);
         border-radius: .5rem; color: #1c1f23; }
figure { text-align: center; }
figure svg, figure img { display: inline-block; width: 100%; height: auto; }
figure img.wide { max-width: 54rem; }
figure img.narrow { max-width: 46rem; }
figcaption { text-align: left; font-size: .85rem; color: #5b6470; margin-top: .6rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th.number, td.number { text-align: right; padding-right: 1.4rem; }
tr.first td { border-top: 1px solid var(--soft); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: .4rem 0 1rem; padding: .8rem 1rem; font-size: .85rem; background: var(--card);
      border: 1px solid var(--line); border-radius: .5rem; white-space: pre-wrap;
      overflow-wrap: anywhere; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
@media print {
  :root { --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --card: #fff; --accent: #000;
          --good: #000; --wait: #000; }
  body { padding: 0; max-width: none; font-size: 10.5pt; }
  dl.facts div { flex-basis: 8rem; padding: .4rem .6rem; margin: .25rem; }
  figure, table, dl.facts { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title>
<style>{css}</style>
</head>
<body>
{body}
</body>
</html>
"""


def escape(value: Any) -> str:
    """A value as text of HTML; of a name that is no UTF-8 what can be shown."""
    return html.escape(readable(str(value)))


def readable(text: str) -> str:
    """A text without what no file can hold: bytes of a name that are no UTF-8 become a sign."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def quoted(text: str) -> str:
    """A word for a shell, whatever the bytes of a path in it are."""
    if readable(text) == text:
        return shlex.quote(text)
    shown = (
        chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in os.fsencode(text)
    )
    return f"$'{''.join(shown)}'"


def percent(share: float) -> str:
    """A share as a percentage with one digit, or two significant digits below one percent."""
    return f"{100 * share:.2g}%" if abs(share) < 0.01 else f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """A time in the two units that matter, as in "1 h 05 min"."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def document(title: str, body: Sequence[str], *, reloads: bool) -> str:
    """The page with a title and the parts of its body; it may reload itself now and then."""
    refresh = f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">\n' if reloads else ""
    return _PAGE.format(refresh=refresh, title=escape(title), css=_CSS, body="\n".join(body))


def facts(entries: Iterable[tuple[str, str, str]]) -> str:
    """Boxes of a name, a value and a note, which may be empty."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        + (f"<small>{escape(note)}</small>" if note else "")
        + "</dd></div>"
        for name, value, note in entries
    )
    return f'<dl class="facts">{cells}</dl>'


def details(title: str, content: str) -> str:
    """A part that opens when it is asked for; the content is HTML."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def warnings(words: Sequence[str], *, so_far: bool) -> list[str]:
    """What is wrong with a result, before everything else; nothing if nothing is."""
    if not words:
        return []
    start = "So far" if so_far else "Mind"
    items = "".join(f"<li>{escape(line)}</li>" for line in words)
    return [f'<div class="warning"><p>{start}:</p><ul>{items}</ul></div>']


def table(
    head: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    numbers: Sequence[int] = (),
) -> str:
    """A table; every row comes with a class for its <tr>, cells are escaped here."""

    def cell(tag: str, i: int, text: str) -> str:
        align = ' class="number"' if i in numbers else ""
        return f"<{tag}{align}>{escape(text)}</{tag}>"

    top = "".join(cell("th", i, text) for i, text in enumerate(head))
    body = "".join(
        f'<tr class="{name}">' + "".join(cell("td", i, t) for i, t in enumerate(row)) + "</tr>"
        for name, row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def inline_svg(picture: bytes) -> str:
    """The <svg> element alone, without a fixed size, so that the page scales it."""
    text = picture.decode("utf-8")
    text = text[text.index("<svg") :]
    # The metadata names vocabularies by address, which a self-contained page has no use for.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1).replace(
        "<svg", '<svg role="img" aria-label="The two cells as graphs"', 1
    )


def figure(content: str, caption: str) -> str:
    """A picture with words below it."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def png(picture: bytes, alt: str, css_class: str = "") -> str:
    """A PNG file as an element."""
    data = base64.b64encode(picture).decode("ascii")
    return f'<img class="{css_class}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
