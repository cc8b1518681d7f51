"""The skeleton of pages that need nothing but themselves.

A page is one file that is opened from the disk. It loads nothing: its policy
forbids that to browsers, and allows no script but its own.
"""

import base64
import hashlib
import html
import importlib.resources
import re
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
  """A text as HTML shows it, whatever characters are in it."""
  return html.escape(str(value))


def document(
  title: str, body: Iterable[str], *, script: str | None = None
) -> str:
  """A whole page.

  Args:
    title: the title, as text.
    body: the parts of its body, as HTML.
    script: a file beside this module with the page's script, if it has one.

  Returns:
    The page, which holds the style sheet of this package.
  """
  code = _file(script) if script else ""
  digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
  policy = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
    f" script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
  )
  return "\n".join(
    (
      "<!doctype html>",
      '<html lang="en">',
      "<head>",
      '<meta charset="utf-8">',
      f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      '<meta name="color-scheme" content="light dark">',
      '<meta name="robots" content="noindex">',
      '<meta name="referrer" content="no-referrer">',
      f"<title>{text(title)}</title>",
      f"<style>{_file('page.css')}</style>",
      "</head>",
      "<body>",
      '<a class="skip" href="#main">Skip to the content</a>',
      *body,
      f"<script>{code}</script>" if code else "",
      "</body>",
      "</html>",
      "",
    )
  )


def image(jpeg: bytes, alt: str, *, kind: str = "") -> str:
  """A picture that is part of the page.

  Args:
    jpeg: the bytes of a JPEG.
    alt: what it shows, for those who cannot see it.
    kind: its class, for the style sheet.
  """
  data = base64.b64encode(jpeg).decode()
  about = f' class="{kind}"' if kind else ""
  return (
    f'<img{about} alt="{text(alt)}" decoding="async"'
    f' src="data:image/jpeg;base64,{data}">'
  )


def section(identity: str, title: str, parts: Iterable[str]) -> str:
  """A section with a heading, which links can lead to."""
  return "\n".join(
    (
      f'<section id="{identity}" aria-labelledby="{identity}-title">',
      f'<h2 id="{identity}-title">{text(title)}</h2>',
      *parts,
      "</section>",
    )
  )


def paragraph(words: str) -> str:
  """A paragraph of plain text, in which `this` is code."""
  marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", text(words))
  return f"<p>{marked}</p>"


def table(
  caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> str:
  """A table.

  Args:
    caption: what it shows.
    columns: the titles of its columns; those of numbers begin with ">".
    rows: cells of plain text; the first cell of a row is its title.
  """
  kinds = [' class="number"' if c.startswith(">") else "" for c in columns]
  head = "".join(
    f'<th scope="col"{kind}>{text(name.removeprefix(">"))}</th>'
    for name, kind in zip(columns, kinds, strict=True)
  )
  lines = []
  for first, *rest in rows:
    cells = "".join(
      f"<td{kind}>{text(cell)}</td>"
      for cell, kind in zip(rest, kinds[1:], strict=True)
    )
    lines.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
  return (
    f'<div class="wide"><table><caption>{text(caption)}</caption>'
    f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    "</div>"
  )


def gallery(figures: Iterable[str], *, kind: str = "") -> str:
  """Figures side by side, as many in a row as there is room for."""
  items = "".join(f"<li>{figure}</li>" for figure in figures)
  return f'<ul class="gallery {kind}">{items}</ul>'


def _file(name: str) -> str:
  folder = importlib.resources.files("fawkes_jax.reporting")
  return (folder / name).read_text(encoding="utf-8")
