"""Makes pages of the manual from the package: see `hooks` in mkdocs.yml."""

import dataclasses
import posixpath
import re
from pathlib import Path

from fawkes_jax import options
from fawkes_jax.cli import generate, subcommands
from fawkes_jax.cli import solver as solver_flags
from fawkes_jax.options import ModeOptions, SolverOptions, declared

ROOT = Path(__file__).parents[1]
COMMANDS = "<!-- commands -->"
OPTIONS = re.compile(r"<!-- options: (\w+) -->")
REPOSITORY = re.compile(r"\]\(((?:\.\./)+(?:launch|README)[^)]*)\)")


def on_page_markdown(markdown, *, page, config, files):
  """Fills in the command reference; unlinks what is outside of the manual."""
  del config, files
  if COMMANDS in markdown:
    markdown = markdown.replace(COMMANDS, commands())
  markdown = OPTIONS.sub(lambda match: fields(match[1]), markdown)
  folder = posixpath.dirname(page.file.src_uri)
  for link in set(REPOSITORY.findall(markdown)):
    path = posixpath.normpath(posixpath.join("docs", folder, link))
    if not (ROOT / path).exists():
      raise ValueError(f"{page.file.src_uri}: there is no {path}")
    markdown = re.sub(
      rf"\[([^]]*)\]\({re.escape(link)}\)", rf"\1 (`{path}`)", markdown
    )
  return markdown


def commands():
  """Every command with its flags, as `--help_all` shows them."""
  return "\n".join(
    line
    for command in subcommands.COMMANDS
    for line in _section(command, "fawkes-jax", 2)
  )


def fields(name):
  """The fields of a class of options, which are made from declarations."""
  kind = getattr(options, name)
  about = (kind.__doc__ or "").partition("\n\nAttributes:")[0]
  rows = []
  for field in dataclasses.fields(kind):
    option = declared.of(field)
    default = generate.default_of(field) or ""
    if field.default is dataclasses.MISSING:
      default = "must be given"
    elif not default and field.default is not None:
      default = repr(field.default)
    if isinstance(field.default, SolverOptions):
      default = 'MODES["mid"]'
    rows.append(f"| `{field.name}` | {_cell(option.doc)} | {_cell(default)} |")
  head = ["| field | what it is | default |", "|---|---|---|"]
  return "\n".join([f"### {name}", "", about, "", *head, *rows, ""])


def _cell(text):
  return text.replace("|", "\\|")


def _section(command, before, level):
  name = f"{before} {command.name}"
  yield from (f"{'#' * level} {name}", "", command.description, "")
  if command.options is not None:
    yield from _flags(command)
  for action in command.actions:
    yield from _section(action, name, level + 1)


def _flags(command):
  kind = command.options
  if command.places:
    places = "IN ... OUT" if command.needs_input else "[IN ...] OUT"
    yield from ("", f"    fawkes-jax {command.name} [flags] {places}", "")
  yield from ("| flag | what it is | default |", "|---|---|---|")
  names = {field.name for field in dataclasses.fields(kind)}
  for field, option in generate.declarations(kind):
    if field.name == "solver":
      for mode in dataclasses.fields(ModeOptions):
        yield _row(ModeOptions, mode, declared.of(mode))
    elif not option.hidden:
      yield _row(kind, field, option)
  if {"solver", "solver_changes"} & names:
    taken = {declared.flag(kind, name) for name in names}
    for field in dataclasses.fields(SolverOptions):
      if declared.flag(SolverOptions, field.name) not in taken:
        shown = solver_flags.default_of(field.name)
        yield _row(SolverOptions, field, declared.of(field), shown)
  yield ""


def _row(kind, field, option, shown=None):
  name = option.positional or declared.flag(kind, field.name)
  default = generate.default_of(field) if shown is None else shown
  if default is None:
    required = field.default is dataclasses.MISSING
    default = "must be given" if required else ""
  return f"| `{name}` | {_cell(option.doc)} | {_cell(default)} |"
