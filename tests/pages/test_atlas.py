"""The atlas in a real browser, offline: rows as the model has them, switches, keys, speed of reading, accessibility."""

import os
import shutil
import time

import pytest
import timm
import torch

from crosshead.heads import head_layers, reading
from crosshead.pages.embedding import atlas_page, embed_blocks
from heads.small_models import MODELS, VIT, images, vit, windowed

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    if os.environ.get("CI"):
        pytest.fail("CI tests the page in chromium, which is not installed", pytrace=False)
    pytest.skip("the page is tested in Debian's chromium, which is not installed", allow_module_level=True)

PIXEL = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
KINDS = {
    **MODELS,
    "re-attention": lambda: (vit("reattention"), 16),
    "knocking": lambda: (vit("knocking"), 16),
    "dcmha": lambda: (vit("dcmha"), 16),
    "windowed": lambda: (windowed("overlap", overlap="constant:2"), 16),
}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync"]  # fmt: skip
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield chromium
        chromium.close()


def soon(holds, seconds=10.0):
    """Waits until something holds. The page's policy forbids playwright's own way, which evaluates texts in it."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def page_data(*runs, size):
    pictures = [
        {"name": n, "caption": n, "width": size, "height": size, "src": PIXEL} for n in ("one.png", "two.png")
    ]
    named = [{"name": name, "note": "", "blocks": embed_blocks(model, images(size))} for name, model in runs]
    return {"pictures": pictures, "runs": named}


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page from disk without a network; fails on any request, console message or error."""
    contexts = []

    def open_page(data, title="Heads", **options):
        file = tmp_path / "atlas.html"
        file.write_text(atlas_page(title, "notes", data), encoding="utf-8")
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or page.heard.append(r.url))
        page.goto(file.as_uri())
        soon(lambda: page.evaluate("window.atlas && atlas.timings.length > 0"))
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.heard == []
        context.close()


def rows_in_page(page, switches="{borrowed: true, alone: null, mixing: true}", picture=1):
    """Rows of every block, for one query, in the order of the blocks: (window, token, rows)."""
    script = f"""() => atlas.page.runs[0].blocks.map((block) => {{
        const {{window: w, token}} = atlas.locate(block, {{x: 0.7, y: 0.3, prefix: null}});
        return [w, token, Array.from(atlas.rowsOf(block, {picture}, w, token, {switches}))];
    }})"""
    return page.evaluate(script)


def rows_in_torch(model, size, own=False):
    found = []

    def on_call(call):
        window, token = call.places.query_at(0.7, 0.3)
        weights = call.own_weights if own else call.weights
        found.append((window, token, weights(None, [token])[call.places.windows + window, :, 0]))

    with torch.no_grad(), reading(model, head_layers(model), on_call):
        model(images(size))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_rows_are_the_models(opened, name):
    model, size = KINDS[name]()
    got = rows_in_page(opened(page_data(("run", model), size=size)))
    for (window, token, rows), (want_window, want_token, want) in zip(
        got, rows_in_torch(model, size), strict=True
    ):
        assert (window, token) == (want_window, want_token)
        apart = (torch.tensor(rows).view(want.shape) - want).abs().sum(-1) / 2
        assert (apart / want.abs().sum(-1).clamp(min=1)).max() <= 0.03


@pytest.mark.parametrize("name", ["overlap", "talking", "imhsa", "re-attention", "dcmha"])
def test_switches_take_away_what_heads_give_each_other(opened, name):
    model, size = KINDS[name]()
    page = opened(page_data(("run", model), size=size))
    got = rows_in_page(page, "{borrowed: false, alone: null, mixing: false}")
    for (_, _, rows), (_, _, want) in zip(got, rows_in_torch(model, size, own=True), strict=True):
        apart = (torch.tensor(rows).view(want.shape) - want).abs().sum(-1) / 2
        assert apart.max() <= 0.03


def test_landmarks_in_windows_are_not_in_the_page():
    model = windowed("imhsa", landmarks=2)
    with pytest.raises(
        ValueError, match=r"block 0 attends to landmarks within windows, .*which the page does not know"
    ):
        embed_blocks(model, images(16))
    assert len(embed_blocks(model, images(16), [1])) == 1


def test_one_head_without_its_neighbours(opened):
    model, size = KINDS["overlap"]()
    page = opened(page_data(("run", model), size=size))
    whole, alone = (
        rows_in_page(page, f"{{borrowed: true, alone: {head}, mixing: true}}")[0][2] for head in ("null", "1")
    )
    changed = [whole[h * 17 : h * 17 + 17] != alone[h * 17 : h * 17 + 17] for h in range(3)]
    assert changed == [False, True, False]


KEYS = [
    ("[", "block", 0),
    ("]", "block", 1),
    (".", "head", 1),
    ("r", "run", 1),
    ("n", "alone", True),
    ("b", "borrowed", False),
    ("m", "mixing", False),
]


def test_every_action_has_a_key(opened):
    lapped = vit("overlap", overlap="constant:2")
    page = opened(page_data(("lapped", lapped), ("mixed", KINDS["imhsa"]()[0]), size=16))
    page.focus("#picture")
    before = page.inner_text("#query-name")
    page.keyboard.press("ArrowRight")
    soon(lambda: page.inner_text("#query-name") != before)
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#pins button").count() == 3  # two pins, and the button that removes them
    soon(lambda: "pinned" in page.inner_text("#query-name"))
    page.keyboard.press("Escape")
    assert not page.evaluate("atlas.state.frozen")
    for key, name, want in KEYS:
        page.keyboard.press(key)
        assert page.evaluate(f"atlas.state.{name}") == want, key
    page.keyboard.press("c")
    soon(lambda: "class token, pinned" in page.inner_text("#query-name"))
    assert page.locator("#landmarks").is_visible()
    assert page.locator("#strongest tbody tr").count() == 10


def test_pointer_pins_and_frees(opened):
    page = opened(page_data(("plain", vit()), size=16))
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"])
    soon(lambda: "row 0, column 3" in page.inner_text("#query-name"))
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(box["x"] + 5, box["y"] + 0.9 * box["height"])
    page.wait_for_timeout(60)
    assert "row 0, column 3" in page.inner_text("#query-name")


def test_the_ring_stands_in_the_middle_of_its_patch(opened):
    page = opened(page_data(("plain", vit()), size=16))
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + 0.93 * box["width"], box["y"] + 0.04 * box["height"])
    soon(lambda: "row 0, column 3" in page.inner_text("#query-name"))
    ring = page.locator("#marks circle").last
    assert [float(ring.get_attribute(name)) for name in ("cx", "cy")] == [14.0, 2.0]
    assert "An even share is 5.88\xa0%" in page.inner_text("#query-name")  # 1 of 17 tokens


def test_tokens_that_are_no_patch_are_buttons(opened):
    page = opened(page_data(("plain", vit()), size=16))
    token = page.locator("#tokens button").first
    assert token.inner_text() == "class token"
    token.click()
    soon(lambda: "Query: class token, pinned" in page.inner_text("#query-name"))
    assert token.get_attribute("aria-pressed") == "true" and page.locator("#marks circle").count() == 0
    page.locator("#tokens").get_by_text("follow the pointer").click()
    soon(lambda: "Query: patch" in page.inner_text("#query-name"))
    assert not page.evaluate("atlas.state.frozen")


def test_a_switch_that_can_do_nothing_is_disabled(opened):
    page = opened(page_data(("plain", vit()), size=16))
    for name in ("borrowed", "alone", "mixing", "block-after"):
        assert page.locator(f"#{name}").is_disabled(), name
    assert page.locator("#block-before").is_enabled()
    page.keyboard.press("n")
    assert page.evaluate("atlas.state.alone") is False
    assert page.inner_text("#switch-note") == "Heads do not interact here."


@pytest.mark.parametrize("width", [1440, 390])
def test_rows_of_runs_of_different_depth_stay_beside_each_other(opened, width):
    deep = timm.models.VisionTransformer(**{**VIT, "depth": 3})
    data = page_data(("a run of a long name", deep), ("b", vit()), size=16)
    page = opened(data, viewport={"width": width, "height": 900})
    assert page.evaluate("atlas.state.block") == 1  # the last that both have
    page.locator("#all-blocks").check()
    rows = page.locator("#runs .block").evaluate_all(
        "all => all.map((each) => each.getBoundingClientRect().top)"
    )
    assert rows[:3] == rows[3:] and rows[0] < rows[1] < rows[2]
    assert page.locator("#runs .absent").inner_text() == "no block 2 here: b has 0, 1"


@pytest.mark.parametrize("beside", [False, True])
def test_maps_fill_their_column(opened, beside):
    runs = [("a", vit()), ("b", vit())] if beside else [("a", vit())]
    page = opened(page_data(*runs, size=16), viewport={"width": 1440, "height": 900})
    column = page.locator("#runs .maps").first.bounding_box()
    boxes = [head.bounding_box() for head in page.locator("#runs .head").all()[:3]]
    assert max(box["x"] + box["width"] for box in boxes) == pytest.approx(
        column["x"] + column["width"], abs=2
    )
    assert max(box["y"] + box["height"] for box in boxes) < 900


def test_against_even_attention_an_even_map_has_one_colour(opened):
    flat = vit()
    for block in flat.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
        torch.nn.init.zeros_(block.attn.qkv.bias)
    page = opened(page_data(("flat", flat), size=16))
    page.select_option("#scale", "even")
    page.wait_for_timeout(
        100
    )  # for the frame in which it is drawn; reading pixels again and again is warned of
    context = "document.querySelector('#runs canvas').getContext('2d')"
    pixels = page.evaluate(f"Array.from({context}.getImageData(0, 0, 4, 4).data)")
    assert pixels == 16 * [247, 247, 247, 255]
    assert page.inner_text("#legend .ends").split("\n") == ["1/16 ×", "even", "16 ×"]
    assert "up to 5.88\xa0%, 1.0\xa0×\xa0even" in page.locator("#runs .name").first.inner_text()


def test_titles_and_data_stay_text(opened):
    data = page_data(("</script><script>alert(1)</script>{{data}}", vit()), size=16)
    page = opened(data, title="<b>{{script}}</b> & more")
    assert page.title() == "<b>{{script}}</b> & more"
    assert page.inner_text(".run-name h2") == "</script><script>alert(1)</script>{{data}}"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_nobody_is_shut_out(opened, scheme, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    data = page_data(("plain", vit()), ("mixed", KINDS["imhsa"]()[0]), size=16)
    page = opened(data, bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_196_patches_redraw_in_time_of_the_right_order(opened):
    """The bounds are tens of times what it takes here: this catches work of the wrong order, not slow machines."""
    model = timm.models.VisionTransformer(embed_dim=384, depth=4, num_heads=6)
    data = page_data(("vit", model), size=224)
    page = opened(data)
    page.locator("#all-blocks").check()
    for step in range(20):
        page.evaluate(f"atlas.state.query = {{x: {step / 20}, y: 0.5, prefix: null}}")
        page.keyboard.press(".")
        page.wait_for_timeout(20)
    timings = sorted(page.evaluate("atlas.timings"))
    assert timings[len(timings) // 2] < 160
