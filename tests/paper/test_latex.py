"""The tables in LaTeX, by LaTeX itself where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clearnets.paper.manuscript import as_latex

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
    nasty = r"50 % & #1, $x_y^2$ ~ {z} \a [−0.1, ≥ ≤ ≈ × ± τ –] --force"
    caption = "50 % & #1, $x_y$ {z} [−0.1, τ ≥ 2]"
    few = as_latex("few", ["name", "mean"], [["a", nasty]], caption, long=False)
    wide = ["−0.025 [−0.038, −0.013]"] * 9
    many = as_latex("many", ["name", *"abcdefghi"], [["native", *wide]], "x", long=False)
    rows = [[f"C{number}", nasty, "a.key/of_many:parts", "f" * 64] for number in range(9, 12)]
    long = as_latex("long", ["", "says", "key", "hash"], rows, caption, long=True)
    assert compiled(tmp_path, few, many, long) == ""
    # The check sees what would stick out.
    assert "Overfull" in compiled(tmp_path, r"\noindent\mbox{" + 200 * "wide" + "}")


def printed(cell: str) -> str:
    """What LaTeX prints for a cell, by rules of its own."""
    for mark, text in ((r"\allowbreak{}", ""), ("$-$", "−"), ("--", "–"), ("-{}-", "--")):
        cell = cell.replace(mark, text)
    cell = cell.replace(r"$\tau$", "τ").replace(r"$\pm$", "±")
    return re.sub(r"\\([&%$#_{}])", r"\1", cell).strip()


@pytest.mark.parametrize("long", [False, True])
def test_a_table_has_its_texts(long):
    rows = [["50 % & #1", "[−0.1, {x}] – ± 2"], ["a.b_c", "run --all v1/2 -0.0165 " + "f" * 64]]
    text = as_latex("t", ["a_b", "τ"], rows, "x_2 $", long=long)
    lines = [line.removesuffix(r"\\") for line in text.splitlines() if line.endswith(r" \\")]
    cells = [[printed(cell) for cell in re.split(r"(?<!\\)&", line)] for line in lines]
    assert [row for row in cells if len(row) == 2] == [["a_b", "τ"]] * (1 + long) + rows
    assert r"x\_2 \$" in text
    with pytest.raises(ValueError, match="2 columns"):
        as_latex("t", ["a", "b"], [["1"]], "", long=long)


def test_keys_and_hashes_break_and_numbers_do_not():
    rows = [["a.b_c", "x = -0.0165, v1/2", "f" * 64]]
    text = as_latex("t", ["", "v", "w"], rows, "c", long=True)
    assert r"a.\allowbreak{}b\_\allowbreak{}c" in text
    assert "-0.0165" in text
    assert r"v1/\allowbreak{}2" in text
    assert r"f\allowbreak{}f" in text
    shares = [float(share) for share in re.findall(r"dimexpr ([\d.]+)\\linewidth", text)]
    assert 0.99 < sum(shares) <= 1
