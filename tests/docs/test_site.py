"""The site builds, every link on it leads somewhere, and it fetches nothing.

Building takes a quarter of a minute: `make docs-test` does it, and `make test` looks at the documents' own links.
"""

import re
import sys

import pytest

from doc_blocks import ROOT, documents

sys.path.insert(0, str(ROOT / "website"))

from badges import FOLDER, badges
from links import broken_links
from reference_pages import ROOMS, public_names
from stage import FENCE

PAGE = '<html><body><h2 id="here">A</h2><a href="#here">a</a><a href="b.html#there">b</a>{more}</body></html>'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    import build

    build.BUILD = tmp_path_factory.mktemp("build")  # beside that of `make docs`
    return build.build(execute=False)


def test_every_link_of_the_documents_leads_to_a_file():
    lost = [
        f"{document.relative_to(ROOT)}: {address}"
        for document in documents()
        for address in re.findall(r"\]\((?![a-z]+:|#)([^)\s#]+)", FENCE.sub("", document.read_text()))
        if not (document.parent / address).exists()
    ]
    assert not lost


@pytest.mark.soak
def test_every_link_of_the_site_leads_somewhere(site):
    assert broken_links(site) == []


@pytest.mark.soak
def test_the_reference_has_every_public_name(site):
    for room in ROOMS:
        text = (site / "reference" / f"{room}.html").read_text()
        missing = [name for name in public_names(room) if f'.{name}"' not in text]
        assert not missing, room


@pytest.mark.soak
def test_the_site_is_searched_as_files(site):
    """Opened as files, where a browser starts no worker (website/worker.js)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium")
        page = browser.new_page()
        page.goto((site / "start.html").as_uri())
        page.keyboard.press("Control+k")
        page.keyboard.type("white_level")
        page.get_by_text("As cameras and microscopes store them").wait_for(timeout=30_000)
        browser.close()


@pytest.mark.parametrize(
    "more, told",
    [
        ("", []),
        ('<a href="c.html">c</a>', ["a.html: c.html: there is no such file"]),
        ('<a href="b.html#nowhere">c</a>', ["a.html: b.html#nowhere: there is no such place on the page"]),
        (
            '<script src="https://x.org/s.js"></script>',
            ["a.html: https://x.org/s.js: is fetched from elsewhere"],
        ),
        ('<a href="https://x.org/">a link is not fetched</a>', []),
    ],
)
def test_the_check_of_links_finds_what_is_wrong(tmp_path, more, told):
    (tmp_path / "a.html").write_text(PAGE.format(more=more))
    (tmp_path / "b.html").write_text('<html><body id="there"></body></html>')
    assert broken_links(tmp_path) == told


def test_badges_are_true():
    assert badges() == {path.name: path.read_text() for path in FOLDER.glob("*.svg")}, (
        "python website/badges.py"
    )
