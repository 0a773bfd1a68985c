"""The pages of probes and of comparisons in a real browser: offline, light and dark, by keys, for everyone."""

import io
import json
import os
import shutil

import pytest
from PIL import Image

from compare.fake_runs import fake_sweep
from crosshead.compare.comparison import compare_runs
from crosshead.compare.telling import as_data
from crosshead.judging.judgement import Chart, Report, Table
from crosshead.pages.charts import Curve, Dots, draw_curves, draw_dots
from crosshead.pages.reports import compare_page, judging_page, probe_page
from crosshead.probes.report import Cell, ProbeReport
from crosshead.probes.training import Run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    if os.environ.get("CI"):
        pytest.fail("CI tests the page in chromium, which is not installed", pytrace=False)
    pytest.skip("the page is tested in Debian's chromium, which is not installed", allow_module_level=True)

HOSTILE = "</style><script>alert(1)</script>{{body}}"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync"]  # fmt: skip
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The text of a page each, by name."""
    folder = fake_sweep(
        tmp_path_factory.mktemp("runs") / "sweep",
        plain=[0.90, 0.92, 0.91],
        wide=[0.95, 0.97, 0.96],
        same=[0.905, 0.915, 0.925],
    )
    runs = [Run(i, 0.9, [(10, 0.5), (20, 0.9)]) for i in range(3)]
    cells = [
        Cell("plain", 4, 100, 1e-4, 1.0, 20, runs),
        Cell(HOSTILE, 4, 110, 2e-4, 1.5, 20, runs),
        Cell("plain", 4, 110, 2e-4, 1.5, 20, runs, "parameters", "talking, 4 heads"),
    ]
    report = ProbeReport("recall", "find & fetch", {}, 0.25, 8, 1, 2, 1e-3, [0, 1, 2], cells)
    judged = Report("pets: test pictures judged", "test", "validation", ["Said first."])
    judged.charts.append(Chart("ROC", "others", [("run", [(0.0, 0.0), (0.2, 0.9), (1.0, 1.0)])], "A note."))
    judged.tables.append(Table("Classes", [{"class": HOSTILE, "F1": "90 %"}]))
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(picture, "PNG")
    return {
        "judging": judging_page(judged.as_data(), [(HOSTILE, picture.getvalue())], "The worst."),
        "compare": compare_page(as_data(compare_runs([folder]))),
        "probe": probe_page(json.loads(report.to_json()), report.rows(), report.words()),
    }


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page from disk without a network; fails on any request, console message or error."""
    contexts = []

    def open_page(text, **options):
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        assert file.stat().st_size < 1e6
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("dialog", lambda dialog: page.heard.append(dialog.message))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or page.heard.append(r.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.heard == []
        context.close()


def test_the_verdict_comes_first_and_all_seeds_are_drawn(opened, pages):
    page = opened(pages["compare"])
    assert page.locator("main > :nth-child(2)").get_attribute("class") == "verdict"
    assert page.locator("h1").inner_text() == "plain against same, wide"
    dots = page.get_by_role("img", name="test accuracy of every seed")
    assert dots.locator("circle").count() == 9
    assert page.get_by_role("img", name="validation accuracy").locator("path.curve").count() == 9
    assert "optimizer.lr" in page.get_by_role("region", name="settings").inner_text()
    assert page.locator("table").count() == 3


def test_a_probe_shows_kinds_and_controls(opened, pages):
    page = opened(pages["probe"])
    assert page.get_by_role("img", name="accuracy of every seed").locator("circle").count() == 9
    assert page.get_by_role("img", name="accuracy against steps").locator("path.thin").count() == 3
    assert HOSTILE in page.locator("table").inner_text()


def test_it_is_read_by_keys(opened, pages):
    page = opened(pages["compare"])
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("details").evaluate("each => each.open")
    page.get_by_role("region", name="recipes").focus()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "recipes"


@pytest.mark.parametrize("name", ["compare", "probe", "judging"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_nobody_is_shut_out(opened, pages, name, scheme, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    page = opened(pages[name], bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_chart_is_scrolled_and_not_shrunk_on_a_narrow_window(opened, pages):
    page = opened(pages["compare"], viewport={"width": 360, "height": 800})
    chart = page.get_by_role("img", name="test accuracy of every seed")
    units = float(chart.get_attribute("viewBox").split()[2])
    assert 12 * chart.bounding_box()["width"] / units > 10  # pixels of a letter: 12 in the chart's own units
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_charts_of_nothing_and_of_equal_values():
    assert "<svg" in draw_dots([Dots("one", [0.5])], str, "name")
    assert "<svg" in draw_dots([Dots("none", [])], str, "name")
    assert "<circle" in draw_curves([Curve("one", [(1.0, 0.0)])], str, "name", "x")
