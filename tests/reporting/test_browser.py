"""The report in a browser: what people see, and what they can do with it."""

import itertools
import shutil

import made_up
import pytest
from terminal import run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

pytestmark = pytest.mark.processes

# In 0..1, by WCAG 2.2, from a colour as browsers tell it.
LUMINANCE = """
(colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => {
    const c = part / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
"""


@pytest.fixture(scope="module")
def chromium():
  """A browser without a window."""
  api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed"
  )
  found = [path for path in map(shutil.which, BROWSERS) if path]
  if not found:
    pytest.skip("no browser: apt-get install chromium")
  with api.sync_playwright() as playwright:
    # Its sandbox refuses to run for root, who runs tests in containers.
    browser = playwright.chromium.launch(
      executable_path=found[0], args=["--no-sandbox"]
    )
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory, small_astronaut):
  """The report of a run, with every section that there can be."""
  folder = tmp_path_factory.mktemp("run")
  photos = {f"{i:02}.png": small_astronaut for i in range(15)}
  made_up.run(folder / "in", folder / "out", photos)
  ended = run("report", folder / "in", folder / "out")
  assert (ended.code, ended.errors) == (0, "")
  return folder / "out" / "report.html"


@pytest.fixture
def opened(chromium, report):
  """Opens the report, and fails where it loads or says something."""
  contexts, complaints = [], []

  def open_(**options):
    context = chromium.new_context(offline=True, **options)
    contexts.append(context)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
      "request",
      lambda request: (
        request.url.startswith(("file://", "data:"))
        or complaints.append(request.url)
      ),
    )
    page.goto(report.as_uri())
    return page

  yield open_
  for context in contexts:
    context.close()
  assert complaints == []


def test_every_picture_is_there_and_described(opened):
  page = opened()
  pictures = page.locator("img")
  assert pictures.count() > 40
  for width, alt in pictures.evaluate_all(
    "all => all.map(one => [one.naturalWidth, one.alt])"
  ):
    assert width > 0 and alt


def test_faces_are_compared_with_the_keyboard(opened):
  page = opened()
  slider = page.get_by_role("slider").nth(1)  # The first is for all.
  for _ in range(40):
    page.keyboard.press("Tab")
    if slider.evaluate("one => one === document.activeElement"):
      break
  else:
    pytest.fail("the Tab key never comes to the first face")
  after = page.locator(".compare .after").first

  def cut():
    return after.evaluate("one => getComputedStyle(one).clipPath")

  assert "50%" in cut()
  page.keyboard.press("ArrowRight")
  assert "51%" in cut()
  assert slider.get_attribute("aria-valuetext") == "51 % before, 49 % after"
  page.keyboard.press("Home")
  assert cut().endswith(" 0%)")  # Nothing is cut from the cloaked face.
  page.keyboard.press("End")
  assert "100%" in cut()
  outline = page.locator(".compare").first.evaluate(
    "one => getComputedStyle(one).outlineStyle"
  )
  assert outline == "solid"


def test_one_slider_moves_all_faces_of_its_section(opened):
  page = opened()
  section = page.locator("#weakest")
  section.locator(".all input").fill("0")
  values = section.locator(".compare input").evaluate_all(
    "all => all.map(one => one.value)"
  )
  assert set(values) == {"0"}
  others = page.locator("#visible .compare input").evaluate_all(
    "all => all.map(one => one.value)"
  )
  assert set(others) == {"50"}


def test_a_screen_reader_finds_its_way(opened):
  page = opened()
  levels = page.locator("h1, h2, h3, h4").evaluate_all(
    "all => all.map(one => Number(one.tagName[1]))"
  )
  assert levels[0] == 1 and levels.count(1) == 1
  for upper, lower in itertools.pairwise(levels):
    assert lower - upper <= 1
  for role in ("main", "banner", "contentinfo", "navigation"):
    assert page.get_by_role(role).count() == 1
  names = page.get_by_role("slider").evaluate_all(
    "all => all.map(one => one.ariaLabel || one.labels[0]?.textContent)"
  )
  assert len(names) > 15 and all(names)
  for chart in page.locator("svg").all():
    assert "The median is" in chart.text_content() or "outcome" in (
      chart.text_content()
    )
  identities = page.locator("[id]").evaluate_all("all => all.map(o => o.id)")
  assert len(identities) == len(set(identities))
  for link in page.locator("a").all():
    assert page.locator(link.get_attribute("href")).count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_both_colour_schemes(opened, scheme):
  page = opened(color_scheme=scheme)
  light = page.evaluate(
    f"({LUMINANCE})(getComputedStyle(document.body).backgroundColor)"
  )
  assert (light > 0.5) == (scheme == "light")
  for selector in ("h2", "td", "thead th", "figcaption", "section p", "dt"):
    ratio = page.locator(selector).first.evaluate(
      f"""one => {{
        const light = {LUMINANCE};
        const card = one.closest("section");
        const ink = light(getComputedStyle(one).color);
        const paper = light(getComputedStyle(card).backgroundColor);
        const [low, high] = [ink, paper].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
      }}"""
    )
    assert ratio >= 4.5, selector


def test_a_telephone_needs_no_sideways_scrolling(opened):
  page = opened(viewport={"width": 360, "height": 640})
  assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_scripts_all_pictures_are_visible(opened):
  page = opened(java_script_enabled=False)
  figure = page.locator("figure").first
  boxes = [image.bounding_box() for image in figure.locator("img").all()]
  assert len(boxes) == 3
  rights = [box["x"] + box["width"] for box in boxes]
  assert rights[0] <= boxes[1]["x"] and rights[1] <= boxes[2]["x"]
  assert not page.locator(".all").first.is_visible()


@pytest.mark.parametrize(
  ("wish", "how"), [("reduce", "auto"), ("no-preference", "smooth")]
)
def test_nothing_moves_for_those_who_want_it_still(opened, wish, how):
  page = opened(reduced_motion=wish)
  root = "getComputedStyle(document.documentElement)"
  assert page.evaluate(f"{root}.scrollBehavior") == how
