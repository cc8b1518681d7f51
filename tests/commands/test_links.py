"""Links of README, CONTRIBUTING and the manual lead to what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
  [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "checkpoints").glob("*.md"),
  ]
)
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")


def anchors(text):
  """The names that GitHub and mkdocs give to headings."""
  text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
  for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
    plain = re.sub(r"[^\w\- ]", "", heading.lower())
    yield plain.strip().replace(" ", "-")


@pytest.mark.parametrize(
  "page", PAGES, ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
  for link in LINK.findall(page.read_text()):
    if re.match(r"\w+:", link):
      continue  # What is on other machines may be away.
    name, _, anchor = link.partition("#")
    there = (page.parent / name).resolve() if name else page
    assert there.exists(), link
    assert there.is_relative_to(ROOT), link
    if anchor:
      assert anchor in set(anchors(there.read_text())), link


def test_every_page_is_in_the_manual():
  nav = (ROOT / "mkdocs.yml").read_text()
  for page in (ROOT / "docs").rglob("*.md"):
    assert f": {page.relative_to(ROOT / 'docs')}\n" in nav, page
