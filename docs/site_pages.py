"""What the site of `mkdocs.yml` has besides docs/*.md: README, experiments/README and all figures.

A page lies in site/ as its source does in docs/, so that links from there into the checkout lead to
the same files; those of the other pages are rewritten.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "paper/figures"
# Sources outside of docs/, and the pages that they become.
PAGES = {"README.md": "index.md", "experiments/README.md": "experiments.md"}
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")
# A block with the file that it is, as in docs/extending.md.
TITLED = re.compile(r"^```(python|yaml) (\S+)$", re.M)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages and the figures."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=moved(text, Path(source).parent)))
    for path in sorted(FIGURES.glob("*.svg")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "figures.md", content="\n".join(gallery())))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Make links to the added pages links between pages, and name the files of blocks."""
    text = LINK.sub(lambda link: link[1] + _between_pages(link[2]) + link[3], markdown)
    return TITLED.sub(r'```\1 title="\2"', text)


def _between_pages(target: str) -> str:
    inside = target.removeprefix("../")
    return PAGES.get(inside, target) if inside != target else target


def moved(text: str, folder: Path) -> str:
    """Return a page of another folder of the checkout with its links as they are from docs/."""

    def link(found: re.Match[str]) -> str:
        target = found[2]
        if "://" in target:
            return found[0]
        path = (ROOT / folder / target).resolve().relative_to(ROOT).as_posix()
        inside = path.removeprefix("docs/")
        here = inside != path or (path.startswith("paper/figures/") and path.endswith(".svg"))
        return f"{found[1]}{inside if here else f'../{path}'}{found[3]}"

    return LINK.sub(link, text)


def gallery() -> Iterator[str]:
    """Yield the lines of a page with every figure, what its script says of it, and its name."""
    yield "# Figures"
    yield ""
    yield "Every figure of the default run; `paper/scripts/` draws them from its tables."
    for path in sorted(FIGURES.glob("*.svg")):
        script = FIGURES.parent / "scripts" / f"{path.stem.partition('-')[0]}.py"
        about = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        yield f"\n## {path.stem}\n"
        yield " ".join(about.partition("\n\n")[0].split())
        yield f"\n![{path.stem}](paper/figures/{path.name})"
