"""The page in a real browser: what is found is what is there, and nothing in the data is markup."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import synthetic_page as synthetic
import synthetic_results

from clearnets.analysis import rating_files
from clearnets.browser import written
from clearnets.browser.page import pack, render, unpack
from clearnets.pipeline import paths

PAGE = synthetic.page()
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NOT_EXPLAINED = "No explanation: active in too few windows to explain."
# What a screen reader has nothing to say about.
UNNAMED = """() => [...document.querySelectorAll(
    "#view button, #view input, #view select, #view textarea, header button, nav a"
)].filter((element) => !(
    element.getAttribute("aria-label") || element.labels?.length || element.textContent.trim()
)).map((element) => element.outerHTML)"""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def test_the_file_holds_everything_and_names_no_address():
    html = render(PAGE)
    assert unpack(html) == PAGE
    # The name of SVG's elements looks like an address, and is never fetched.
    assert re.findall(r"https?://[^\"\s]*", html) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<link[^>]+href=\"(?!data:)|<script[^>]+src=|@import|url\(", html)
    assert "default-src 'none'" in html


def test_the_same_data_give_the_same_bytes_and_no_text_of_theirs_is_in_the_file():
    assert render(PAGE) == render(synthetic.page())
    assert synthetic.EVIL not in render(PAGE)
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", pack(PAGE))


@pytest.fixture(scope="module")
def chromium():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; CHROMIUM names one")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render(PAGE), encoding="utf-8")
    return path


class Tab:
    """A tab of its own, which notes errors and what it asked for."""

    def __init__(self, chromium, file: Path, **options) -> None:
        self.context = chromium.new_context(viewport={"width": 1200, "height": 800}, **options)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.address = file.as_uri()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.open("")

    def open(self, link: str):
        opened = self.page.url.startswith(self.address)
        self.page.goto(f"{self.address}#{link}")
        if opened:  # Only what is behind # has changed: nothing was read again.
            self.page.reload()
        # The page's policy forbids to evaluate text, so there is no waiting for an expression.
        self.page.wait_for_selector("#main", state="attached")
        return self.page


@pytest.fixture
def tab(chromium, file):
    made = Tab(chromium, file)
    yield made
    assert made.errors == []
    assert {url.split(":")[0] for url in made.asked} <= {"file", "about", "data", "blob"}
    made.context.close()


def name(i: int, page=PAGE) -> str:
    c = page["latents"]
    return f"{page['families'][c['family'][i]]}/{c['layer'][i]}/{c['latent'][i]}"


def explained(page=PAGE) -> list[int]:
    return [i for i, status in enumerate(page["latents"]["status"]) if status == "explained"]


def found(page) -> list[int]:
    return page.evaluate("app.list.found")


def test_every_latent_has_an_address_and_shows_what_is_known(tab):
    c = PAGE["latents"]
    for i in (0, 3, 31, 59):
        page = tab.open(name(i))
        assert f"latent {c['latent'][i]}" in page.inner_text("#latent-title")
        says = page.inner_text(".explanation")
        assert says == (
            c["explanation"][i] or "No explanation: active in too few windows to explain."
        )
        assert page.locator("mark").count() >= 2 * len(c["examples"][i])
        links = page.eval_on_selector_all(
            ".card a", "all => all.map((a) => a.getAttribute('href'))"
        )
        assert links == [f"#{name(other)}" for other, _ in c["near"][i]]
    assert "No latent native/0/9999" in tab.open("native/0/9999").inner_text("main")


def test_tokens_are_underlined_where_the_explanation_fires(tab):
    i = next(
        i
        for i, fires in enumerate(PAGE["latents"]["fires"])
        if fires[0] and PAGE["latents"]["effect"][i]
    )
    page = tab.open(name(i))
    shown = page.locator(".examples").first.locator("li").first.locator(".fires")
    text = PAGE["text"]["explain"][PAGE["latents"]["examples"][i][0][0]]
    visible = [k for k in PAGE["latents"]["fires"][i][0] if PAGE["special"][text[k]] is None]
    assert shown.count() == len(visible)
    assert PAGE["latents"]["effect"][i][0] in page.locator(".effect").inner_text()


def test_marks_are_as_strong_as_the_activations(tab):
    page = tab.open(name(1))
    shown = page.eval_on_selector_all(
        ".examples mark", "all => all.map((m) => +m.style.getPropertyValue('--a'))"
    )
    levels = []
    for example in PAGE["latents"]["examples"][1]:
        window = PAGE["text"]["explain"][example[0]]
        pairs = zip(example[2::2], example[3::2])
        levels += [level for place, level in pairs if PAGE["special"][window[place]] is None]
    assert shown == pytest.approx([level / PAGE["levels"] for level in levels], abs=6e-4)


def test_readers_of_the_screen_get_the_strength_of_each_mark(tab):
    page = tab.open(name(1))
    shares = page.eval_on_selector_all(
        "mark", "all => all.map((m) => +m.style.getPropertyValue('--a'))"
    )
    heard = page.eval_on_selector_all(
        "mark", "all => all.map((m) => [m.textContent, m.firstChild.data, m.title])"
    )
    for share, (whole, token, title) in zip(shares, heard, strict=True):
        percent = int(re.fullmatch(re.escape(token) + r" \((\d+) %\)", whole)[1])
        assert percent == pytest.approx(100 * share, abs=0.56)
        assert f"{percent} % of its largest" in title
    assert re.search(r"\(\d+ %\)", page.locator(".examples").first.aria_snapshot())
    box = page.locator("mark .hidden-text").first.bounding_box()
    assert box["width"] * box["height"] <= 1
    assert page.evaluate("document.documentElement.scrollHeight") <= 800, "it takes no place"
    page = tab.open("rate")
    start(page)
    marks = page.eval_on_selector_all("mark", "all => all.map((m) => [m.textContent, m.title])")
    assert marks
    for text, title in marks:
        assert f"({title.split(' of ')[0]})" in text


def luminance(colour) -> float:
    """WCAG 2.1's relative luminance of sRGB from 0 to 255."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in colour)
    ]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def colours(theme: str) -> dict[str, str]:
    """The custom properties of the style sheet, by name."""
    style = render(PAGE).split("<style>")[1].split("</style>")[0]
    blocks = re.findall(r":root(\[data-theme=\"dark\"\])? \{(.*?)\}", style, re.DOTALL)
    found = {}
    for dark, block in blocks:
        if not dark or theme == "dark":
            found |= dict(re.findall(r"--([\w-]+): ([^;]+);", block))
    return found


def channels(hexed: str) -> list[int]:
    digits = hexed[1:] if len(hexed) == 7 else "".join(2 * digit for digit in hexed[1:])
    return [int(digits[k : k + 2], 16) for k in (0, 2, 4)]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_a_mark_of_any_strength_has_the_contrast_of_wcag(theme):
    found = colours(theme)
    glow = [int(channel) for channel in found["glow"].split(",")]
    weak, strong = float(found["weak"]), float(found["strong"])
    ink = luminance(channels(found["ink"]))
    assert 0 < weak < strong
    for ground in ("paper", "panel"):
        below = channels(found[ground])
        for step in range(101):
            alpha = strong * step / 100  # From a cell of the families without any to the strongest.
            mixed = [alpha * g + (1 - alpha) * b for g, b in zip(glow, below, strict=True)]
            dark, light = sorted([ink, luminance(mixed)])
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, alpha)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_marks_are_drawn_in_the_colours_of_the_style_sheet(chromium, file, theme):
    tab, found = Tab(chromium, file, color_scheme=theme), colours(theme)
    drawn = tab.open(name(1)).evaluate("""() => [...document.querySelectorAll(".window mark")].map(
        (mark) => [+mark.style.getPropertyValue("--a"), getComputedStyle(mark).backgroundColor,
        getComputedStyle(mark).color])""")
    weak, strong = float(found["weak"]), float(found["strong"])
    for share, back, ink in drawn:
        *rgb, alpha = map(float, re.findall(r"[\d.]+", back))
        assert rgb == [float(channel) for channel in found["glow"].split(",")]
        assert alpha == pytest.approx(weak + (strong - weak) * share, abs=0.005)
        assert re.findall(r"\d+", ink) == list(map(str, channels(found["ink"])))
    tab.context.close()


def test_text_of_the_data_stays_text(tab):
    page = tab.open(name(0))
    assert page.inner_text(".explanation") == PAGE["latents"]["explanation"][0]
    page.click("summary:has-text('language model')")
    assert synthetic.EVIL in page.inner_text(".exchange")
    page.evaluate("location.hash = '#families'")
    page.evaluate("location.hash = ''")
    page.wait_for_timeout(50)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#view script, #view img, #view b:has-text('home')").count() == 0


def test_search_and_filters_find_what_plain_python_finds(tab):
    page, c = tab.open(""), PAGE["latents"]
    assert found(page) == explained()
    page.fill("#search", "W1")
    assert found(page) == [i for i in explained() if "w1" in c["explanation"][i].lower()]
    page.click("button:text-is('Clear')")
    page.select_option("[aria-label=Family]", label="transcoder")
    page.select_option("[aria-label=Layer]", label="layer 1")
    wanted = [i for i in explained() if (c["family"][i], c["layer"][i]) == (1, 1)]
    assert found(page) == wanted
    page.select_option("[aria-label=Order]", label="highest score")
    assert found(page) == sorted(wanted, key=lambda i: -c["scores"][i][0])
    page.click("button:text-is('Clear')")
    page.click("text=More filters")
    page.fill("[aria-label='score from']", "0.5")
    page.fill("[aria-label='% of tokens to']", "1")
    page.select_option("[aria-label='Concept it recovers best']", label="colour")
    assert found(page) == [
        i
        for i in explained()
        if c["scores"][i][0] >= 0.5 and c["rate"][i] <= 0.01 and c["concept"][i] == 1
    ]
    page.click("button:text-is('Clear')")
    page.click("text=More filters")
    page.select_option("[aria-label=Status]", label="too rare")
    assert found(page) == [i for i in range(60) if i not in explained()]


def test_search_in_the_text_of_the_examples(tab):
    page, c = tab.open(""), PAGE["latents"]
    page.check("text=also in the text")
    page.fill("#search", "fox ran")
    texts = ["".join(PAGE["tokens"][t] for t in window) for window in PAGE["text"]["explain"]]
    holding = {n for n, text in enumerate(texts) if "fox ran" in text.lower()}
    assert found(page) == [i for i in explained() if holding & {e[0] for e in c["examples"][i]}]


def test_keys(tab):
    page, order = tab.open(""), explained()
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("location.hash") == f"#{name(order[2])}"
    page.keyboard.press("k")
    assert page.evaluate("location.hash") == f"#{name(order[1])}"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "latent-title"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("location.hash") == f"#{name(order[2])}"
    page.keyboard.press("/")
    page.keyboard.type("jk?")
    assert page.input_value("#search") == "jk?"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.evaluate("document.getElementById('keys').open")


def test_single_keys_can_be_switched_off_but_for_the_rating_in_focus(tab):
    page, order = tab.open(""), explained()
    page.click("#help")
    page.uncheck("#single-keys")
    page.click("text=Close")
    for _ in range(2):  # And it is kept.
        for key in "jr/t?":
            page.keyboard.press(key)
        assert page.evaluate("location.hash") == ""
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        assert page.evaluate("document.activeElement.id") != "search"
        assert not page.evaluate("document.getElementById('keys').open")
        page = tab.open("")
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("location.hash") == f"#{name(order[1])}", "a key of several letters"
    page = tab.open("rate")
    start(page)
    page.keyboard.press("y")
    assert page.evaluate("app.rating.answers.length") == 1
    page.focus("#theme")
    page.keyboard.press("y")
    assert page.evaluate("app.rating.answers.length") == 1
    page.click("#help")
    page.check("#single-keys")
    page.click("text=Close")
    page.keyboard.press("y")
    assert page.evaluate("app.rating.answers.length") == 2


def test_an_address_that_cannot_be_decoded_names_no_latent(tab):
    for link in ("%", "native/%E0%A4%A"):
        page = tab.open(link)
        assert page.inner_text("#latent-title") == f"No latent {link}"
        assert found(page) == explained()


def test_seeds_are_told_apart_where_there_are_several(tab, chromium, tmp_path):
    assert tab.page.locator("[aria-label='Training seed']").count() == 0
    several, path = synthetic.page(seeds=(3, 5)), tmp_path / "index.html"
    path.write_text(render(several), encoding="utf-8")
    other = Tab(chromium, path)
    seeds = several["latents"]["seed"]
    for label, wanted in (("seed 5", {5}), ("seed 3", {3}), ("all seeds", {3, 5})):
        other.page.select_option("[aria-label='Training seed']", label=label)
        assert found(other.page) == [i for i in explained(several) if seeds[i] in wanted]
    assert "seed 3" in other.page.inner_text("#row-0")
    assert other.errors == []
    other.context.close()


def test_readers_of_the_screen_get_names_and_places(tab):
    for link in (name(1), "families", "circuits", "rate"):
        page = tab.open(link)
        unnamed = page.evaluate(UNNAMED)
        assert unnamed == []
    page = tab.open(name(explained()[1]))
    chosen = page.locator("[role=listbox] [role=option][aria-selected=true]")
    assert chosen.get_attribute("aria-posinset") == "2"
    assert chosen.get_attribute("aria-setsize") == str(len(explained()))
    listed = page.get_attribute("[role=listbox]", "aria-activedescendant")
    assert listed == chosen.get_attribute("id")
    assert page.inner_text("[role=status]") == f"{len(explained())} of 60 latents"


def test_dark_where_the_system_is_and_on_demand(chromium, file):
    tab = Tab(chromium, file, color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    assert tab.page.evaluate(theme) == "dark"
    tab.page.keyboard.press("t")
    assert tab.page.evaluate(theme) == "light"
    tab.open("families")
    assert tab.page.evaluate(theme) == "light", "the choice is kept"
    tab.context.close()


def test_nothing_is_wider_than_a_phone(tab):
    tab.page.set_viewport_size({"width": 360, "height": 700})
    for link in ("", name(1), "families", "circuits", "rate"):
        page = tab.open(link)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, link
    page = tab.open(name(1))
    assert not page.is_visible("#list")
    page.click("text=← List")
    assert page.is_visible("#list")
    page = tab.open("rate")
    start(page)
    box = page.locator("[data-answer=yes]").bounding_box()
    assert box["y"] + box["height"] <= 700, "the answers are always in sight"


def test_ten_thousand_latents_are_few_elements(chromium, tmp_path):
    path = tmp_path / "index.html"
    large = synthetic.page(10_000, seeds=(0, 1))
    path.write_text(render(large), encoding="utf-8")
    tab = Tab(chromium, path)
    assert tab.page.locator("[role=option]").count() < 40
    tab.page.evaluate("app.list.box.scrollTop = 1e9")
    tab.page.wait_for_selector(f"#row-{len(explained(large)) - 1}")
    assert tab.page.locator("[role=option]").count() < 40
    other = large["latents"]["seed"].index(1)
    link = tab.page.evaluate(f"app.latents.link({other})")
    assert link.endswith("/seed-1")
    assert "seed 1" in tab.open(link).inner_text("#latent-title")
    tab.context.close()


def start(page, rater="mara", count=4) -> None:
    page.fill("#rater", rater)
    page.fill("#how-many", str(count))
    page.click("text=Start")


def test_rating_keeps_the_focus_and_says_where_it_is_in_one_place(tab):
    page = tab.open("rate")
    page.evaluate("window.said = document.querySelector('#view [role=status]')")
    focused = "document.activeElement.dataset.answer || document.activeElement.id"
    start(page)
    assert page.evaluate(focused) == "main"
    page.click("[data-answer=no]")
    for place in ("Latent 1 of 4, question 2", "Latent 2 of 4, question 1"):
        assert place in page.inner_text("[role=status]")
        assert page.evaluate(focused) == "no"
        page.keyboard.press("Enter")
    for _ in range(5):
        page.keyboard.press("y")
    assert page.inner_text("h2") == "Done"
    assert page.evaluate(focused) == "main"
    page.click("text=One answer back")
    assert page.evaluate(focused) == "main"
    assert "Latent 4 of 4, question 2" in page.inner_text("[role=status]")
    assert page.locator("#view [aria-live]").count() == 1
    assert page.evaluate("window.said === document.querySelector('#view [role=status]')")


def test_ratings_are_blind_kept_and_saved_as_collate_reads_them(tab, tmp_path, monkeypatch):
    page = tab.open("rate")
    start(page)
    for number, key in enumerate("ynuy"):
        body = page.inner_text("body").lower() + page.content().split("<script")[0].lower()
        assert not [f for f in synthetic.FAMILIES if re.search(rf"\b{f}\b", body)]
        assert page.title() == "clearnets · rate blind"
        assert page.locator(".explanation").count() == number % 2, "the second question shows it"
        page.keyboard.press(key)
    page.keyboard.press("b")
    page.wait_for_timeout(500)  # Chromium stores what a page keeps a moment later.
    page = tab.open("rate")
    start(page)
    assert "Latent 2 of 4, question 2" in page.inner_text("[role=status]"), "it goes on"
    for key in "nyyyy":
        page.keyboard.press(key)
    assert page.inner_text("h2") == "Done"
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "mara.jsonl"
    saved = Path(download.value.path()).read_text(encoding="utf-8")
    records = [json.loads(line) for line in saved.splitlines()]
    assert [record["answer"] for record in records] == [
        *("yes", "no", "unsure", "no", "yes", "yes", "yes", "yes"),
    ]
    assert [record["question"] for record in records] == ["interpretable", "fits"] * 4
    c = PAGE["latents"]
    for record in records:
        i = record["latent"]
        assert record["explanation"] == c["explanation"][i]
        assert record["family"] == name(i).split("/")[0]
        assert record["layer"] == c["layer"][i]
    assert len({record["family"] for record in records}) == 3, "families take turns"

    monkeypatch.chdir(tmp_path)
    config = synthetic_results.few().model_copy(update={"experiment": "made-up"})
    folder = paths.ratings("made-up")
    folder.mkdir(parents=True)
    (folder / "mara.jsonl").write_text(saved, encoding="utf-8")
    places = {}
    for record in records:
        place = tmp_path / f"{record['family']}-{record['layer']}"
        place.mkdir(exist_ok=True)
        lines = [json.dumps({"latent": i, "explanation": c["explanation"][i]}) for i in range(60)]
        (place / "explanations.jsonl").write_text("\n".join(lines) + "\n")
        places[record["family"], 0, record["layer"]] = place
    read = rating_files.read(config, places)
    assert read is not None
    assert len(read) == 8
    assert read["current"].all()


def test_explanations_of_ones_own_are_kept_and_saved_as_judge_reads_them(tab):
    first, second = explained()[0], explained()[1]
    page = tab.open(name(second))
    assert page.is_disabled(".own button")
    page.keyboard.press("e")
    page.keyboard.type("quick: j e / ")
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    assert page.evaluate("location.hash") == f"#{name(first)}", "the keys work again"
    page.fill("#own", f"{synthetic.EVIL} \n“fox”")
    page.wait_for_timeout(500)  # Chromium stores what a page keeps a moment later.
    page = tab.open(name(second))
    assert page.input_value("#own") == "quick: j e / "
    assert page.inner_text(".own button") == "Save all 2 as a file"
    with page.expect_download() as download:
        page.click(".own button")
    assert download.value.suggested_filename == "explanations-made-up.jsonl"
    config = synthetic_results.few().model_copy(update={"experiment": "made-up"})
    wrote = {first: f"{synthetic.EVIL} \n“fox”", second: "quick: j e /"}
    lines = written.read(Path(download.value.path()), config)
    assert {(*line.place, line.latent): line.explanation for line in lines} == {
        ("native", 0, PAGE["latents"]["layer"][i], i): text for i, text in wrote.items()
    }
    page.fill("#own", " ")
    assert page.inner_text(".own button") == "Save as a file", "what is empty is gone"
    page.check(".own input")
    page.evaluate(f"location.hash = '#{name(first)}'")
    assert page.is_checked(".own input")
    for hidden in ("main .explanation", ".item .says", ".card p"):
        assert not page.locator(hidden).first.is_visible()
    silent = next(i for i in range(60) if i not in explained())
    page = tab.open(name(silent))
    assert page.locator("#own").count() == 0, "no judge could score it"
    page.keyboard.press("e")


def test_the_families_view_sums_up_and_leads_to_the_list(tab):
    page, c = tab.open("families"), PAGE["latents"]
    cell = page.locator("tbody tr").nth(1).locator("td button").nth(0)
    wanted = [i for i in explained() if (c["family"][i], c["layer"][i]) == (1, 0)]
    scores = sorted(c["scores"][i][0] for i in wanted)
    middle = len(scores) // 2
    median = scores[middle] if len(scores) % 2 else (scores[middle - 1] + scores[middle]) / 2
    assert float(cell.inner_text()) == pytest.approx(median, abs=0.0051)
    cell.click()
    assert sorted(found(page)) == wanted


def test_a_circuit_has_its_latents_at_their_layer_and_token(tab):
    circuit = next(c for c in PAGE["circuits"] if (c["task"], c["family"]) == ("wear", 1))
    page = tab.open("circuits/wear/transcoder")
    assert page.locator(".prompt b").inner_text() == "boots"
    rows = page.locator("table.graph tbody tr")
    layers = [rows.nth(n).locator("th").inner_text() for n in range(rows.count())]
    assert layers == ["answer", "layer 1", "layer 0"]
    columns = page.locator("tfoot th small").all_inner_texts()
    last = len(circuit["tokens"]) - 1
    assert columns == [str(p) for p in sorted({n[1] for n in circuit["nodes"]} | {last})]
    for layer, position, latent, effect, row, said in circuit["nodes"]:
        cell = rows.nth(len(PAGE["layers"]) - layer).locator("td").nth(columns.index(str(position)))
        chip = cell.locator(".chip", has_text=str(latent)).first
        assert f"{abs(effect):.2f}" in chip.inner_text()
        wanted = said or PAGE["latents"]["explanation"][row] or "active in too few windows"
        assert wanted in chip.locator(".says").inner_text()
        assert chip.get_attribute("href") == (None if row is None else f"#{name(row)}")
    assert page.evaluate("window.hacked") is None


def test_links_of_a_latent_are_shown_when_it_is_pointed_to(tab):
    circuit = next(c for c in PAGE["circuits"] if (c["task"], c["family"]) == ("wear", 0))
    page = tab.open("circuits/wear/native")
    strong = sorted(circuit["links"], key=lambda link: -abs(link[2]))[: 2 * len(circuit["nodes"])]
    lines = page.locator(".lines path")
    assert lines.count() == len(strong)
    assert page.locator(".lines path.against").count() == sum(w < 0 for *_, w in strong)
    number = page.locator("b", has_text=re.compile(f"^{circuit['nodes'][0][2]}$"))
    page.locator(".chip", has=number).hover()
    own = [link for link in circuit["links"] if 0 in link[:2]]
    assert lines.count() == len(own)


def test_fewer_latents_other_families_and_the_way_to_a_latent(tab):
    page = tab.open("circuits")
    assert page.locator(".chip").count() == 7, "six latents and the answer"
    page.evaluate("""() => { const range = document.querySelector("input[type=range]");
        range.value = 4; range.dispatchEvent(new Event("input")); }""")
    assert page.locator(".chip").count() == 5
    page.select_option("[data-choice=family]", label="transcoder")
    assert page.evaluate("location.hash") == "#circuits/wear/transcoder"
    page.select_option("[data-choice=task]", label="nonsense")
    assert page.evaluate("location.hash") == "#circuits/nonsense/transcoder"
    assert "too little" in page.inner_text("main")
    link = page.locator("a.chip").first.get_attribute("href")
    page.locator("a.chip").first.click()
    assert page.evaluate("location.hash") == link
    assert page.inner_text("#latent-title").startswith("transcoder")


def test_without_circuits_there_is_no_way_to_them(chromium, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(render(PAGE | {"circuits": []}), encoding="utf-8")
    tab = Tab(chromium, path)
    assert not tab.page.is_visible("nav a[data-view=circuits]")
    assert "looked for none" in tab.open("circuits").inner_text("main")
    tab.context.close()
