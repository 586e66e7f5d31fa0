"""Measure how fast the feature browser responds with 10,000 latents, in a real Chromium.

    python benchmarks/browser_speed.py [artifacts/browser/index.html]

The latents of the given page are repeated until there are enough. `opened` is the time from the
navigation until the list and a latent are drawn; all others are from the event until the next frame
is drawn. Each is the median of ten runs. Needs playwright and a Chromium (`CHROMIUM`, or on the
path).
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from clearnets.browser.page import render, unpack

LATENTS, RUNS = 10_000, 10
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FRAME = """() => new Promise((done) => {
    const start = performance.now();
    %s;
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
ACTS = {
    "searched": "app.list.filters.query = 'before'; app.list.apply()",
    "searched the examples": "app.list.filters.examples = true; app.list.apply()",
    "sorted": "Object.assign(app.list.filters, {query: '', sort: 'score'}); app.list.apply()",
    "next latent": "app.list.step(1)",
    "families": "app.put(document.createElement('p')); location.hash = '#families'; app.route()",
}


def enlarge(page: dict, size: int) -> dict:
    """Return the page's data with its latents repeated under other numbers."""
    columns = page["latents"]
    count = len(columns["latent"])
    repeated = {key: [values[i % count] for i in range(size)] for key, values in columns.items()}
    repeated["latent"] = list(range(size))
    return {**page, "latents": repeated}


def opened(page: Page, address: str) -> float:
    """Return the milliseconds until the page can be used."""
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("mark")
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "artifacts/browser/index.html")
    html = render(enlarge(unpack(source.read_text(encoding="utf-8")), LATENTS))
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "index.html"
        path.write_text(html, encoding="utf-8")
        print(f"{LATENTS:,} latents, {path.stat().st_size / 1e6:.1f} MB")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        times = [opened(page, path.as_uri()) for _ in range(RUNS)]
        print(f"{'opened':24}{statistics.median(times):8.0f} ms")
        for name, act in ACTS.items():
            times = [page.evaluate(FRAME % act) for _ in range(RUNS)]
            print(f"{name:24}{statistics.median(times):8.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
