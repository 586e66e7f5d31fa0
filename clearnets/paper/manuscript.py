"""Compile the paper from `paper/clearnets.typ` and the committed tables and figures, with Typst.

Typst is a self-contained wheel: no network, no fonts but those it brings, no date in the file, so
that the same tables give the same bytes on any machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clearnets import UserError, config
from clearnets.paper import addresses, claims
from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.artifacts import Unit
from clearnets.pipeline.folders import replaced

SOURCE = Path("paper/clearnets.typ")
# The experiment that the text is about; any other gets a report.
SUBJECT = "default"
# By format what the file must be: of PDF, accessible (ISO 14289-1, PDF/UA).
STANDARDS = {"pdf": ["ua-1"], "html": []}
# Where other experiments have their tables, which may enter the paper if they have run.
RESULTS = Path("paper/results")


@dataclass(frozen=True)
class Place:
    """Which results a paper is about and where it is written. Paths are relative to the project.

    Attributes:
        tables: the experiment's folder of tables.
        figures: its figures, with their captions.
        params: its parameters as YAML.
        out: the PDF.
        latex: the folder of the same tables in LaTeX.
    """

    tables: Path
    figures: Path
    params: Path
    out: Path
    latex: Path


def place_of(experiment: str, *, tracked: bool) -> Place:
    """Return the place of the pipeline's own paper, which DVC tracks, or of another one's."""
    tables = paths.results(experiment)
    if tracked:
        return Place(tables, paths.FIGURES, config.PARAMS, paths.PAPER, paths.LATEX)
    figures, params = tables / paths.FIGURES.name, tables / config.PARAMS.name
    return Place(tables, figures, params, tables / paths.PAPER.name, tables / paths.LATEX.name)


def run(place: Place) -> None:
    """Compile the paper and write its tables in LaTeX.

    Raises:
        UserError: a table, figure or source is not there, the parameters are not those of the
            results, or a sentence asks for a result that the tables do not hold.
    """
    compiler = _compiler(place, "pdf")
    pdf = _compiled(compiler, "pdf")
    settings = artifacts.settings_of(place.tables)
    unit = Unit("paper", place.latex, settings, {"tables": place.tables, "figures": place.figures})
    with replaced(unit) as part:
        for name, text in _latex(compiler).items():
            artifacts.write_text(part / f"{name}.tex", text)
    artifacts.write_bytes(place.out, pdf)


def differs(place: Place) -> bool:
    """Tell whether the PDF at `place.out` differs from what its tables and figures give."""
    pdf = _compiled(_compiler(place, "pdf"), "pdf")
    return not place.out.exists() or place.out.read_bytes() != pdf


def as_html(place: Place) -> str:
    """Return the whole text as HTML, which a test or a screen reader can read."""
    return _compiled(_compiler(place, "html"), "html").decode()


def _compiler(place: Place, target: str) -> Any:
    import typst

    artifacts.check(place.tables)
    _check_parameters(place)
    if not (place.figures / artifacts.MANIFEST).exists():
        raise UserError(f"{place.figures} is missing or incomplete; run `clearnets figures` first")
    if not SOURCE.exists():
        raise UserError(f"{SOURCE} is missing; run in the project's folder")
    experiment = artifacts.settings_of(place.tables)["experiment"]
    inputs = {
        "target": target,
        "experiment": experiment,
        "claims": _found(place.tables) if experiment == SUBJECT else {},
        "tables": _typst(place.tables),
        "figures": _typst(place.figures),
        "params": _typst(place.params),
        "usual": addresses.USUAL,
        "results": _typst(RESULTS),
        "there": [
            *sorted(path.stem for path in place.tables.glob("*.csv")),
            *sorted(f"{path.parent.name}/{path.stem}" for path in RESULTS.glob("*/*.csv")),
        ],
    }
    return typst.Compiler(
        SOURCE, root=".", ignore_system_fonts=True, sys_inputs={"place": json.dumps(inputs)}
    )


def _found(folder: Path) -> dict[str, dict[str, str]]:
    """Return by name the finding of each claim on results, on the tables of a folder."""
    tables = addresses.tables_in(folder)
    return {
        claim.name: {"state": finding.state, "found": finding.found}
        for claim in claims.read()
        if claim.holds is not None
        for finding in (claims.check(claim, tables),)
    }


def _check_parameters(place: Place) -> None:
    """Require that the parameters that the paper prints are those that made the tables."""
    if not place.params.exists():
        raise UserError(f"{place.params} is missing; {artifacts.remake(place.params)}")
    recorded = artifacts.settings_of(place.tables)
    now = config.read_yaml(place.params)
    differing = (
        at
        for key, value in recorded.items()
        for at in _differing(value, config.value_at(now, key), key)
    )
    if key := next(differing, None):
        raise UserError(
            f"{place.tables} was made with other parameters than {place.params} has ({key}); "
            "run `dvc repro collate figures` first"
        )


def _differing(one: Any, other: Any, at: str) -> Iterator[str]:
    """Yield the dotted keys of values that differ. A key that one of them lacks has its default
    there, or has come since."""
    if other is None:
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted(one.keys() & other.keys()):
            yield from _differing(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, pair in enumerate(zip(one, other)):
            yield from _differing(*pair, f"{at}[{place}]")
    elif one != other:
        yield at


def _typst(path: Path) -> str:
    """Return a path as Typst takes it: from the root, which is the project."""
    return f"/{path.as_posix()}"


def _compiled(compiler: Any, format: str) -> bytes:
    import typst

    try:
        # Tagged, and every figure with words for who cannot see it: the compiler checks that.
        return compiler.compile(format=format, timestamp=0, pdf_standards=STANDARDS[format])
    except typst.TypstError as error:
        raise UserError(_format_error(error)) from None


def _format_error(error: Any) -> str:
    """Return a compiler's complaint, which says what a sentence misses in the tables, as a line."""
    message = str(error.message).removeprefix("panicked with: ").splitlines()[0]
    cure = "run `dvc repro collate figures`, or mend the sentence that asks for it"
    return f"{SOURCE} does not compile: {message}; {cure}"


def _latex(compiler: Any) -> dict[str, str]:
    found = json.loads(compiler.query("<tabular>", field="value"))
    return {table["name"]: as_latex(**table) for table in found}


def as_latex(
    name: str, header: list[str], rows: list[list[str]], caption: str, *, long: bool
) -> str:
    """Return a table in LaTeX with the texts that the manuscript prints.

    A float, at most as wide as a line, needs booktabs and graphicx; a `long` table, whose cells and
    pages break, booktabs, longtable and array.

    Raises:
        ValueError: a row is longer or shorter than the header.
    """
    frame = pd.DataFrame(rows, columns=header)
    columns = "l" + "r" * (len(header) - 1)
    if long:
        frame = frame.map(_breakable)
        widths = np.minimum([len(max(column, key=len)) for column in zip(header, *rows)], 40) + 10
        shares = widths / widths.sum() - 0.0005  # Rounded, they are together no more than a line.
        columns = "".join(_COLUMN % share for share in shares)
    text = frame.to_latex(
        index=False,
        escape=True,
        longtable=long,
        column_format=columns,
        caption=re.sub(r"([&%$#_{}])", r"\\\1", caption),
        label=f"tab:{name}",
    )
    if long:
        text = f"\\begingroup\\footnotesize\\setlength{{\\tabcolsep}}{{3pt}}\n{text}\\endgroup\n"
    else:
        text = text.replace(r"\begin{table}", r"\begin{table}" + "\n\\centering\\footnotesize")
        text = text.replace(r"\begin{tabular}", _FIT + r"\begin{tabular}")
        text = text.replace(r"\end{tabular}", r"\end{tabular}}")
    return re.sub("-(?=-)", "-{}", text).translate(_SYMBOLS)


# A column of a long table, as wide as a share of the line.
_COLUMN = r">{\raggedright\arraybackslash}p{\dimexpr %.3f\linewidth-2\tabcolsep\relax}"
# A table that is wider than the line is made as wide as that.
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%" + "\n"
# Characters that pdflatex does not know, and the mark of `_breakable`.
_SYMBOLS = str.maketrans(
    {
        "−": "$-$",
        "–": "--",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "≈": r"$\approx$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "τ": r"$\tau$",
        "\u200b": r"\allowbreak{}",
    }
)


def _breakable(cell: str) -> str:
    """Let keys break behind their marks and hashes anywhere, but no number at its point."""
    keys = re.sub(r"(?<=\w)(?:[_/:](?=\w)|\.(?=[^\W\d]))", lambda mark: mark[0] + "\u200b", cell)
    return re.sub(r"\w{20,}", lambda word: "\u200b".join(word[0]), keys)
