"""What a release promises about itself."""

import datetime
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging import requirements, utils, version

from fawkes_jax.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEADING = re.compile(r"^## (\S+) - (\d{4}-\d{2}-\d{2})$", re.MULTILINE)


def text(name):
  """The text of a file that is in the checkout, but not in a wheel's tests."""
  if not (ROOT / name).exists():
    pytest.skip(f"{name} is not here: no checkout")
  return (ROOT / name).read_text()


def test_the_changelog_and_the_citation_are_of_this_version():
  newest, day = HEADING.search(text("CHANGELOG.md")).groups()
  assert newest == __version__
  citation = yaml.safe_load(text("CITATION.cff"))
  assert citation["version"] == __version__
  assert citation["date-released"] == day
  assert datetime.date.fromisoformat(day) <= datetime.date.today()
  for entry in (citation, *citation["references"]):
    assert entry["title"] and entry["authors"]
  assert citation["license"] == PROJECT["project"]["license"]


def test_every_python_that_is_promised_is_a_classifier():
  lowest = version.Version(PROJECT["project"]["requires-python"].strip(">="))
  minors = [
    version.Version(classifier.rpartition(" ")[2])
    for classifier in PROJECT["project"]["classifiers"]
    if re.search(r":: 3\.\d+$", classifier)
  ]
  assert minors[0] == lowest
  assert [v.minor for v in minors] == [
    lowest.minor + i for i in range(len(minors))
  ]
  # CI asks for the same ones.
  assert f"python_of {minors[-1]} " in text(".ci/run")
  assert f"python_of {minors[0]} " in text(".ci/run")


@pytest.mark.parametrize(
  ("name", "extras"), [("newest", ("dev", "docs")), ("oldest", ("test",))]
)
def test_ci_installs_versions_that_were_tested_before(name, extras):
  """All that the project asks for is pinned, to what it asks for."""
  pins = {}
  for line in text(f".ci/{name}.txt").splitlines():
    if line and not line.startswith("#"):
      pin = requirements.Requirement(line)
      [exact] = pin.specifier
      assert exact.operator == "==" and pin.url is None, line
      pins.setdefault(utils.canonicalize_name(pin.name), []).append(
        exact.version
      )
  wanted = list(PROJECT["project"]["dependencies"])
  several = PROJECT["project"]["optional-dependencies"]
  ahead = list(extras)
  while ahead:
    for asked in map(requirements.Requirement, several[ahead.pop()]):
      if asked.name == "fawkes-jax":
        ahead += asked.extras
      else:
        wanted.append(str(asked))
  for asked in map(requirements.Requirement, wanted):
    for exact in pins[utils.canonicalize_name(asked.name)]:
      assert asked.specifier.contains(exact, prereleases=True), asked


def test_the_oldest_jax_that_is_promised_is_the_oldest_that_is_tested():
  pins = text(".ci/oldest.txt").splitlines()
  for asked in map(
    requirements.Requirement, PROJECT["project"]["dependencies"]
  ):
    if asked.name in ("jax", "jaxlib"):
      [lowest] = asked.specifier
      exact = version.Version(lowest.version)
      assert f"{asked.name}=={exact.major}.{exact.minor}.0" in pins


def test_checks_before_a_commit_are_those_of_ci():
  hooks = [
    hook
    for repository in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    for hook in repository["hooks"]
  ]
  ran = re.sub(r'"\$work/venv/bin/(\w+)"', r"\1", text(".ci/run"))
  ran = re.sub(r"\\\n\s*", "", ran)
  assert {hook["language"] for hook in hooks} == {"system"}
  for hook in hooks:
    command = hook["entry"].removeprefix("env ").removeprefix("bash -c ")
    assert command.strip("'") in ran, hook["id"]
  stage = ran.partition('stage "lint, format')[2].partition("\nstage ")[0]
  tools = re.findall(r"^(?:for|\w+)(?= |$)", stage, re.MULTILINE)
  assert len(tools) == len(hooks) - 1  # And the manual.


def test_forms_of_issues_can_be_filled_in():
  text(".ci/run")
  for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
      continue
    assert form["name"] and form["description"]
    identities = [part["id"] for part in form["body"] if "id" in part]
    assert identities and len(identities) == len(set(identities))
    for part in form["body"]:
      assert part["type"] in ("markdown", "textarea", "input")
      assert part["attributes"].get("label") or part["attributes"]["value"]


def anchors(path):
  """What links into a page may name: its headings, as sites show them."""
  page = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
  return {
    re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
  }


@pytest.mark.parametrize(
  "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
)
def test_links_lead_somewhere(name):
  """Of the manual's own pages, mkdocs says so."""
  for link in re.findall(r"\]\(([^)\s]+)\)", text(name)):
    if link.startswith(("https://", "mailto:")):
      continue
    path, _, anchor = link.partition("#")
    target = ROOT / (path or name)
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link
