"""The site of docs/: every page is in it, its links lead somewhere, and it needs no network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from clearnets.config import read_yaml

ROOT = Path(__file__).parents[1]
SETTINGS = read_yaml(ROOT / "mkdocs.yml")


def listed(part) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(part, str):
        return [part]
    parts = part.values() if isinstance(part, dict) else part
    return [page for inside in parts for page in listed(inside)]


def test_every_page_is_in_the_navigation_once():
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    added = ["index.md", "figures.md", "experiments.md"]
    assert sorted(listed(SETTINGS["nav"])) == sorted([*pages, *added])


class Links(HTMLParser):
    """Collects what a page links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "a" and "href" in found:
            self.links.append(found["href"] or "")
        if tag == "link" and found.get("rel") != "canonical":
            self.loaded.append(found.get("href") or "")
        self.loaded += [found["src"] or ""] if "src" in found else []


@pytest.mark.nightly
def test_the_site_opens_offline_and_finds_pages_and_functions(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    # Beside a checkout, as `make docs` leaves it.
    site = tmp_path / "checkout/site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 200
    for page in pages:
        found = Links(page.read_text(encoding="utf-8"))
        assert not [one for one in found.loaded if re.match(r"(https?:)?//", one)], page
        for link in {*found.links, *found.loaded}:
            name = unquote(link.partition("#")[0])
            if not name or re.match(r"\w+:", name) or page.name == "404.html":
                continue
            target = (page.parent / name).resolve()
            if not target.is_relative_to(site):  # In the checkout.
                target = ROOT / target.relative_to(site.parent)
            assert target.exists(), (page, link)
    index = (site / "search/search_index.js").read_text(encoding="utf-8")
    entries = json.loads(index.partition("=")[2].strip().rstrip(";"))["docs"]
    titles = {entry["title"] for entry in entries}
    assert {"Artifact appendix", "Figures", "The commands"} <= titles
    places = {entry["location"] for entry in entries}
    assert "api/clearnets/paper/compare.html#clearnets.paper.compare.compare" in places
