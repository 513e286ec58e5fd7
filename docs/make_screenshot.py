"""Make docs/explorer.png, the picture of the explorer, from a model of the toy storefront.

    diffgrm demo --out storefront-model
    python docs/make_screenshot.py storefront-model

Needs playwright and a Chromium on the path (or the one that ``playwright install chromium`` brings).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel
from diffgrm.apps.serving.run import in_background

HISTORY = ["item 126", "item 139"]  # a camera and a lens of one brand


def main() -> None:
    """Read the command line, take the picture."""
    parser = argparse.ArgumentParser(description="Take a picture of the explorer.")
    parser.add_argument("model", type=Path, help="folder of a model of the toy storefront")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("explorer.png"))
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    parser.add_argument("--step", type=int, default=2)
    given = parser.parse_args()
    view = [("history", item) for item in HISTORY] + [("step", str(given.step)), ("similar", HISTORY[-1])]
    with in_background(create_app(LiveModel(given.model))) as address, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": given.width, "height": given.height}, color_scheme=given.theme, reduced_motion="reduce"
        )
        page.goto(f"{address}#{urlencode(view)}")
        page.wait_for_selector("#denoising .beam li")
        page.wait_for_selector("#similar .ranked li")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=given.out)
        browser.close()


if __name__ == "__main__":
    main()
