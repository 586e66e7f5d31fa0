"""The tables in LaTeX, by LaTeX itself where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clearnets.paper import latex

TABLES = Path(__file__).parents[2] / "paper/tables"
PACKAGES = ("booktabs", "graphicx", "longtable", "array")


def _has_latex() -> bool:
    if not (shutil.which("pdflatex") and shutil.which("kpsewhich")):
        return False
    files = [f"{package}.sty" for package in PACKAGES]
    done = subprocess.run(["kpsewhich", *files], check=False, capture_output=True)
    return done.returncode == 0


needs_latex = pytest.mark.skipif(not _has_latex(), reason="pdflatex or its packages are absent")


def compiled(folder: Path, *tables: str) -> str:
    """What LaTeX complains about when it sets an article of these tables."""
    head = [r"\documentclass{article}", rf"\usepackage{{{','.join(PACKAGES)}}}"]
    lines = [*head, r"\begin{document}", *tables, r"\end{document}"]
    (folder / "all.tex").write_text("\n".join(lines), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, check=False, capture_output=True, cwd=folder)
    log = (folder / "all.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-2000:]
    return "\n".join(re.findall(r"^(?:!|Overfull|Missing character).*", log, re.M))


@needs_latex
def test_the_papers_tables_compile(tmp_path):
    tables = [path.read_text(encoding="utf-8") for path in sorted(TABLES.glob("*.tex"))]
    assert len(tables) > 5
    compiled(tmp_path, *tables)


@needs_latex
def test_any_character_compiles_and_no_table_is_wider_than_a_line(tmp_path):
    nasty = r"50 % & #1, $x_y^2$ ~ {z} \a [−0.1, ≥ ≤ ≈ × ± τ < > –] --force"
    few = latex.tabular(["name", "mean"], [["[a]", nasty]], caption=nasty, label="few")
    wide = ["−0.025 [−0.038, −0.013]"] * 9
    many = latex.tabular(["name", *"abcdefghi"], [["native", *wide]], caption="x", label="many")
    rows = [[f"C{number}", nasty, "a.key/of_many:parts", "f" * 64] for number in range(9, 12)]
    long = latex.long(["", "says", "key", "hash"], rows, caption=nasty, label="long")
    assert compiled(tmp_path, few, many, long) == ""
    # The check sees what would stick out.
    assert "Overfull" in compiled(tmp_path, r"\noindent\mbox{" + 200 * "wide" + "}")


def test_keys_break_and_numbers_do_not():
    text = latex.long(["", "v"], [["a.b_c", "x = -0.0165, v1/2"]], caption="c", label="t")
    assert r"a.\allowbreak{}b\_\allowbreak{}c" in text
    assert "-0.0165" in text
    assert r"v1/\allowbreak{}2" in text
