"""Take the README's picture again: docs/screenshot.png, of a search in the sample library.

    python scripts/make_screenshots.py [QUERY]

Starts a service and the app on free ports, indexes the sample photos into a throw-away library, and opens the app in
the Chromium that is on the PATH.
"""

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

from scripts.sample_library import SAMPLES, write_samples  # noqa: E402
from tests.browser.servers import index, running_app, running_service  # noqa: E402
from ui.client import Client, Search  # noqa: E402

SCREENSHOT = ROOT / "docs" / "screenshot.png"
COLOURS = 256


def main(query: str) -> None:
    """Take the picture."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no Chromium on the PATH: install the package chromium.")
    with tempfile.TemporaryDirectory() as directory:
        photos = Path(directory) / "Photos"
        write_samples(photos)
        with running_service(Path(directory) / "library") as service, Client(service) as client:
            index(client, photos)
            client.search(Search(text=query))  # the first one is slower: it must not be the one that is shown
            with running_app(service) as app, sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
                )
                page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
                _search(page, app, query)
                page.screenshot(path=SCREENSHOT)
                browser.close()
    with Image.open(SCREENSHOT) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(SCREENSHOT, optimize=True)
    print(f"{SCREENSHOT.relative_to(ROOT)}: {SCREENSHOT.stat().st_size / 1000:.0f} KB")


def _search(page: Page, app: str, query: str) -> None:
    page.goto(app)
    box = page.get_by_role("searchbox", name="Describe the photo")
    box.fill(query)
    box.press("Enter")
    pictures = page.locator('[class*="st-key-card-"] img')
    expect(pictures).to_have_count(len(SAMPLES), timeout=60_000)
    page.wait_for_function("() => [...document.images].every(image => image.naturalWidth)")
    box.evaluate("box => box.blur()")
    page.mouse.move(5, 500)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "a man with a camera")
