"""Searching as a person does: in Chromium, against the real service and the compact model."""

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from ui.client import Client, Result, Search
from ui.wording import match_words, percent

CARDS = '[class*="st-key-card-"]'

STATES = {
    "": "ready to search",
    "?q=people+ride+camels": "These come closest.",
    "?q=a+temple&after=1999-01-01&before=1999-12-31": "No photo passes the filters",
    "?q=a+temple&after=2020-01-01&before=2019-01-01": "Swap the two dates",
    "library": "1 file could not be read",
}
"""Addresses, and something that the page says there."""

CONTRAST = """element => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const paint = colour => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); };
    const luminance = () => {
        const linear = [...canvas.getImageData(0, 0, 1, 1).data].map(byte => byte / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const around = [];
    for (let one = element; one; one = one.parentElement) around.unshift(one);
    around.forEach(one => paint(getComputedStyle(one).backgroundColor));
    const behind = luminance();
    paint(getComputedStyle(element).color);
    const text = luminance();
    return [(Math.max(behind, text) + 0.05) / (Math.min(behind, text) + 0.05), behind];
}"""
"""Contrast ratio of an element's text as WCAG 2 defines it, 1 to 21, and the relative luminance of what lies behind."""


def cards(page: Page) -> Locator:
    return page.locator(CARDS)


def pictures(page: Page) -> Locator:
    return page.locator(f"{CARDS} img")


def expect_photos(page: Page, results: Sequence[Result]) -> None:
    """Wait until these photos are shown, in this order."""
    page.wait_for_function(
        "([selector, names]) => JSON.stringify([...document.querySelectorAll(selector)].map(i => i.alt)) == names",
        arg=[f"{CARDS} img", json.dumps([result.photo.name for result in results], separators=(",", ":"))],
    )


def search(page: Page, app: str, text: str) -> None:
    page.goto(app)
    box = page.get_by_role("searchbox", name="Describe the photo")
    box.fill(text)
    box.press("Enter")
    expect(cards(page).first).to_be_visible()


def parameters(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def badge(result: Result) -> str:
    assert result.match is not None
    return f"{match_words(result.match).capitalize()} · {percent(result.match)}"


def test_a_query_shows_what_the_service_found_best_first(page: Page, app: str, service: Client) -> None:
    search(page, app, "a cup of coffee")

    found = service.search(Search(text="a cup of coffee"))
    expect(cards(page)).to_have_count(24)
    expect_photos(page, found.results)
    for card, result in zip(cards(page).all()[:3], found.results, strict=False):
        expect(card.locator(".ps-badge")).to_have_text(badge(result))
    expect(page.get_by_role("status").filter(has_text=f"of {found.considered} pictures")).to_be_visible()


def test_photos_keep_their_aspect_and_rows_are_level(page: Page, app: str) -> None:
    search(page, app, "a cup of coffee")
    expect(pictures(page)).to_have_count(24)
    page.wait_for_function("s => [...document.querySelectorAll(s)].every(i => i.naturalWidth)", arg=f"{CARDS} img")
    frames = pictures(page).evaluate_all(
        "all => all.map(i => ({shown: i.clientWidth / i.clientHeight, real: i.naturalWidth / i.naturalHeight, fit: "
        "getComputedStyle(i).objectFit, top: i.getBoundingClientRect().top, height: i.clientHeight}))"
    )
    for frame in frames:
        assert frame["fit"] == "contain"
        assert frame["shown"] == pytest.approx(frame["real"], rel=0.02)
    heights = {
        top: [frame["height"] for frame in frames if frame["top"] == top] for top in {frame["top"] for frame in frames}
    }
    assert all(max(row) - min(row) <= 2 for row in heights.values())
    assert len(heights) < len(frames)


def test_more_photos_are_shown_on_demand(page: Page, app: str, service: Client) -> None:
    search(page, app, "a rocket")
    expect(cards(page)).to_have_count(24)
    page.get_by_role("button", name="Show more").click()

    everything = service.search(Search(text="a rocket", top=100)).results
    expect_photos(page, everything)
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)


def test_filters_narrow_the_search_and_stand_in_the_address(page: Page, app: str, service: Client, album: Path) -> None:
    search(page, app, "a building")
    page.get_by_role("combobox", name="Folder").click()
    page.get_by_role("option", name=re.compile(r"^trip\b")).click()
    expect(cards(page)).to_have_count(4)
    assert parameters(page)["folder"] == [str(album / "trip")]

    page.get_by_role("combobox", name="Camera").click()
    page.get_by_role("option", name=re.compile("Canon EOS 5D")).click()
    expect(cards(page)).to_have_count(3)

    page.get_by_role("button", name="Clear all").click()
    expect(cards(page)).to_have_count(24)
    assert parameters(page) == {"q": ["a building"]}

    page.get_by_role("button", name="JPEG", exact=True).click()
    jpegs = service.search(Search(text="a building", formats=("JPEG",))).results
    assert len(jpegs) < 24
    expect_photos(page, jpegs)


def test_dates_that_no_photo_has_say_so_and_are_taken_back(page: Page, app: str) -> None:
    page.goto(f"{app}/?q=a+temple&after=2019-07-14&before=2019-07-14")
    expect(cards(page)).to_have_count(3)
    page.goto(f"{app}/?q=a+temple&after=1999-01-01&before=1999-12-31")
    expect(page.get_by_role("heading", name="No photo passes the filters")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    expect(cards(page)).to_have_count(24)


def test_dates_in_the_wrong_order_are_explained(page: Page, app: str) -> None:
    page.goto(f"{app}/?q=a+temple&after=2020-01-01&before=2019-01-01")
    expect(page.get_by_text("Swap the two dates")).to_be_visible()


def test_nothing_above_the_minimum_match_offers_weaker_ones(page: Page, app: str) -> None:
    page.goto(f"{app}/?q=the+minutes+of+a+committee&min=95")
    expect(page.get_by_role("heading", name="Nothing matches at 95 % or more")).to_be_visible()
    page.get_by_role("button", name="Show weaker matches").click()
    expect(cards(page)).to_have_count(24)


def test_leaving_everything_out_says_so_and_is_taken_back(page: Page, app: str, service: Client) -> None:
    without = ("a building", "the moon", "a rocket")
    left = service.search(Search(text="something", camera="Canon EOS 5D", without=without))
    assert (left.considered, left.total) == (3, 0), "the model no longer sees these in the trip: choose other words"
    page.goto(f"{app}/?q=something&camera=Canon+EOS+5D&without=a+building&without=the+moon&without=a+rocket")
    expect(page.get_by_role("heading", name="Nothing is left")).to_be_visible()
    page.get_by_role("button", name="Leave nothing out").click()
    expect(cards(page)).to_have_count(3)


def test_a_photo_that_is_alone_behind_the_filters_says_so(page: Page, app: str, service: Client, album: Path) -> None:
    coffee = service.search(Search(text="a cup of coffee")).results[0].photo
    assert coffee.copies == (str(album / "trip" / "coffee-again.png"),)
    page.goto(f"{app}/?like={coffee.id}&folder={album / 'trip'}&format=PNG")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    expect(cards(page)).to_have_count(24)


def test_dates_are_typed_or_picked(page: Page, app: str) -> None:
    search(page, app, "a temple")
    page.locator(".st-key-after").get_by_role("spinbutton").first.click()
    page.keyboard.type("20190714")
    page.keyboard.press("Escape")  # Streamlit takes the date when its calendar closes
    expect(page).to_have_url(re.compile("after=2019-07-14"))
    expect(cards(page)).to_have_count(3)
    page.locator(".st-key-before").get_by_role("spinbutton").first.click()
    page.get_by_role("gridcell", name="14").click()
    expect(page).to_have_url(re.compile(r"before=\d{4}-\d\d-14"))


def test_words_that_fit_no_photo_say_so(page: Page, app: str, service: Client) -> None:
    text = "people ride camels"
    best = service.search(Search(text=text)).results[0].match
    assert best is not None
    assert best < 0.2, "the model finds this in the album: choose other words"
    search(page, app, text)
    expect(page.get_by_text("No photo fits these words well.")).to_be_visible()


def test_excluded_words_leave_photos_out(page: Page, app: str, service: Client) -> None:
    search(page, app, "an animal")
    excluded = page.get_by_role("combobox", name="What photos must not show")
    excluded.fill("a cat")
    excluded.press("Enter")
    expect(page).to_have_url(re.compile("without="))

    left = service.search(Search(text="an animal", without=("a cat",)))
    assert left.total < service.search(Search(text="an animal")).total
    expect_photos(page, left.results)


def test_a_photo_opens_with_its_facts_and_scores(page: Page, app: str, service: Client, album: Path) -> None:
    page.goto(f"{app}/?q=a+temple&camera=Canon+EOS+5D")
    page.get_by_role("button", name="Open trip-china.jpg").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("img", name="trip-china.jpg")).to_be_visible()
    expect(dialog.get_by_text("Sunday, 14 July 2019, 16:20")).to_be_visible()
    expect(dialog.get_by_text("Canon EOS 5D")).to_be_visible()
    expect(dialog.get_by_text("48.85840° N, 2.29450° E")).to_be_visible()
    expect(dialog.get_by_text("640 × 427 pixels")).to_be_visible()
    expect(dialog.get_by_text(str(album / "trip" / "trip-china.jpg"))).to_be_visible()

    answer = service.search(Search(text="a temple", camera="Canon EOS 5D"))
    result = next(result for result in answer.results if result.photo.name == "trip-china.jpg")
    assert result.match is not None
    expect(dialog.get_by_text(f"Match {percent(result.match)}")).to_be_visible()
    expect(dialog.get_by_text(f"Similarity {result.similarity:.2f}")).to_be_visible()


def test_one_leafs_through_photos_and_comes_back_to_the_results(page: Page, app: str, service: Client) -> None:
    first, second = service.search(Search(text="coins")).results[:2]
    search(page, app, "coins")
    page.get_by_role("button", name=f"Open {first.photo.name}", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("img", name=first.photo.name, exact=True)).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("img", name=second.photo.name, exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile(f"photo={second.photo.id}"))
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(cards(page)).to_have_count(24)
    expect(page).not_to_have_url(re.compile("photo="))


def test_more_like_this_finds_similar_photos(page: Page, app: str, service: Client) -> None:
    page.goto(f"{app}/?q=a+rocket")
    page.get_by_role("button", name="Open rocket.jpg", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(page.get_by_text("Photos like rocket.jpg")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)

    photo = int(parameters(page)["like"][0])
    similar = service.search(Search(like_photo=photo)).results
    expect(pictures(page).first).to_have_attribute("alt", similar[0].photo.name)
    expect(cards(page).first.locator(".ps-badge")).to_have_text(f"Similarity {similar[0].similarity:.2f}")

    page.get_by_role("button", name="Let go of it").click()
    expect(page.get_by_text("ready to search")).to_be_visible()


def test_an_uploaded_photo_finds_itself_and_goes_with_words(page: Page, app: str, album: Path) -> None:
    page.goto(app)
    page.get_by_role("button", name="Photo").click()
    page.locator("input[type=file]").set_input_files(album / "samples" / "chelsea.png")
    expect(pictures(page).first).to_have_attribute("alt", "chelsea.png")
    expect(cards(page).first.locator(".ps-badge")).to_have_text(re.compile(r"Similarity (0\.[89]\d|1\.00)"))

    box = page.get_by_role("searchbox", name="Describe the photo")
    box.fill("a cat")
    box.press("Enter")
    expect(page.get_by_text("and your words")).to_be_visible()
    expect(cards(page).first.locator(".ps-badge")).to_have_text(re.compile("match"))

    page.get_by_role("button", name="Let go of it").click()
    expect(page.get_by_text("Photos like your photo")).to_have_count(0)


def test_an_upload_that_is_no_picture_is_explained(page: Page, app: str, tmp_path: Path) -> None:
    fake = tmp_path / "fake.jpg"
    fake.write_bytes(b"not a picture at all")
    page.goto(app)
    page.get_by_role("button", name="Photo").click()
    page.locator("input[type=file]").set_input_files(fake)
    expect(page.get_by_text("not a picture")).to_be_visible()


def test_a_bookmark_brings_the_whole_search_back(page: Page, app: str, service: Client) -> None:
    wanted = Search(text="the moon", camera="Canon EOS 5D", after=datetime.date(2019, 1, 1), without=("people",))
    page.goto(f"{app}/?q=the+moon&camera=Canon+EOS+5D&after=2019-01-01&without=people")
    expect_photos(page, service.search(wanted).results)
    page.reload()
    expect_photos(page, service.search(wanted).results)
    expect(page.get_by_role("searchbox", name="Describe the photo")).to_have_value("the moon")
    expect(page.get_by_text("people", exact=True)).to_be_visible()
    kept = parameters(page)
    assert kept["q"] == ["the moon"]
    assert kept["camera"] == ["Canon EOS 5D"]
    assert kept["after"] == ["2019-01-01"]


def test_a_bookmarked_photo_opens_by_itself(page: Page, app: str, service: Client) -> None:
    photo = service.search(Search(text="a cat")).results[0].photo
    page.goto(f"{app}/?photo={photo.id}")
    expect(page.get_by_role("dialog").get_by_role("img", name=photo.name)).to_be_visible()


def test_a_photo_that_nobody_knows_is_named_and_forgotten(page: Page, app: str) -> None:
    page.goto(f"{app}/?photo=99999999")
    expect(page.get_by_text("There is no photo 99999999")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).not_to_have_url(re.compile("photo="))


def test_back_and_forward_walk_through_searches(page: Page, app: str) -> None:
    search(page, app, "a cat")
    box = page.get_by_role("searchbox", name="Describe the photo")
    box.fill("coins")
    box.press("Enter")
    expect(page).to_have_url(re.compile("q=coins"))
    page.go_back()
    expect(box).to_have_value("a cat")
    page.go_forward()
    expect(box).to_have_value("coins")


def test_a_photo_whose_file_is_gone_says_what_to_do(page: Page, app: str, album: Path) -> None:
    page.goto(f"{app}/?q=the+moon&camera=Canon+EOS+5D")
    (album / "trip" / "trip-moon.jpg").rename(album / "trip" / "moved-away")
    try:
        page.get_by_role("button", name="Open trip-moon.jpg").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("The photo's file is not there any more")).to_be_visible()
        expect(dialog.get_by_role("img", name="trip-moon.jpg")).to_be_visible()
    finally:
        (album / "trip" / "moved-away").rename(album / "trip" / "trip-moon.jpg")


def test_it_fits_a_phone(page: Page, app: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    search(page, app, "a cup of coffee")
    expect(cards(page)).to_have_count(24)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    tops = cards(page).evaluate_all("all => all.map(card => card.getBoundingClientRect().top)")
    assert tops[0] == tops[1], "two photos stand side by side"


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 390), ("dark", 1280)])
def test_every_state_fits_and_is_readable(page: Page, app: str, scheme: Literal["light", "dark"], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    for address, said in STATES.items():
        page.goto(f"{app}/{address}")
        text = page.get_by_text(said).first
        expect(text).to_be_visible()
        contrast, behind = text.evaluate(CONTRAST)
        assert contrast >= 4.5, f"{said} is hard to read"
        assert (behind < 0.2) == (scheme == "dark")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_everything_has_a_name_and_is_reached_by_keyboard(page: Page, app: str) -> None:
    search(page, app, "a cup of coffee")
    expect(cards(page)).to_have_count(24)
    assert page.locator("img:not([alt])").count() == 0
    nameless = page.get_by_role("button").evaluate_all(
        "all => all.filter(b => !b.innerText.trim() && !b.ariaLabel && !b.title && !b.querySelector('[alt]')).length"
    )
    assert nameless == 0
    first = cards(page).first.get_by_role("button")
    first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
