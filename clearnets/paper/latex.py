"""Tables as LaTeX, for those who write elsewhere: one file each, nothing but what the paper's say.

They need the packages booktabs and graphicx; long ones, which break over pages, longtable and
array instead of graphicx.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

_SPECIAL = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "−": "$-$",
        "–": "--",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "≈": r"$\approx$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "τ": r"$\tau$",
        "[": "{[}",
        "]": "{]}",
        "<": "$<$",
        ">": "$>$",
        # What `escaped` and `_foldable` put in, for what must not be joined and what may break.
        "\0": "{}",
        "\u200b": r"\allowbreak{}",
    }
)
# Characters of small type in a line, and of the space between two columns.
_LINE, _GAP = 85, 4
# A column of a long table whose cells have no more is as wide as they are; all others share what is
# left of the line in proportion to their longest cell, of which no more than `_WIDE` count.
_NARROW, _WIDE = 12, 40
# A table that is wider than the line is made as wide as that.
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
# A word as long as this may break anywhere.
_LONG_WORD = 20


def escaped(text: str) -> str:
    """`text` as LaTeX sets it. A bracket is put in braces: behind a row's end it would be read as
    that end's argument. Hyphens in a row stay hyphens, as those of an option."""
    return re.sub("-(?=-)", "-\0", text).translate(_SPECIAL)


def tabular(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str
) -> str:
    """A floating table in small type, at most as wide as a line; first column left, others right.

    Raises:
        ValueError: a row is longer or shorter than the header.
    """
    lines = _lines(header, rows, label)
    return "\n".join(
        (
            r"\begin{table}",
            r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
            f"  \\caption{{{escaped(caption)}}}",
            f"  \\label{{tab:{label}}}",
            r"  \smallskip",
            "",
            f"  {_FIT}",
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"    \toprule",
            f"    {lines[0]}",
            r"    \midrule",
            *(f"    {line}" for line in lines[1:]),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
            "",
        )
    )


def long(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str) -> str:
    """A table of texts as wide as a line, whose cells and pages break.

    Raises:
        ValueError: a row is longer or shorter than the header.
    """
    lines = _lines(header, [[_foldable(cell) for cell in row] for row in rows], label)
    shares = _shares([max(map(len, column)) for column in zip(header, *rows)])
    # Rounded down, so that together they are no more than a line.
    widths = [
        rf"\dimexpr {floor(1000 * share) / 1000:.3f}\linewidth-2\tabcolsep\relax"
        for share in shares
    ]
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{width}}}" for width in widths)
    return "\n".join(
        (
            r"\begingroup\footnotesize",
            f"\\begin{{longtable}}{{{columns}}}",
            f"  \\caption{{{escaped(caption)}}}\\label{{tab:{label}}} \\\\",
            r"  \toprule",
            f"  {lines[0]}",
            r"  \midrule",
            r"  \endfirsthead",
            r"  \toprule",
            f"  {lines[0]}",
            r"  \midrule",
            r"  \endhead",
            r"  \bottomrule",
            r"  \endfoot",
            *(f"  {line}" for line in lines[1:]),
            r"\end{longtable}",
            r"\endgroup",
            "",
        )
    )


def _shares(widest: Sequence[int]) -> list[float]:
    """Of a line, for columns with so many characters in their longest cells; together all of it
    where one is wide."""
    own = [(width + _GAP) / _LINE if width <= _NARROW else 0.0 for width in widest]
    wide = [min(width, _WIDE) if width > _NARROW else 0 for width in widest]
    rest = (1 - sum(own)) / sum(wide) if any(wide) else 0.0
    return [share + rest * width for share, width in zip(own, wide)]


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> list[str]:
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"table {label}: a row is not as long as the header")
    return [" & ".join(map(escaped, row)) + r" \\" for row in (header, *rows)]


def _foldable(cell: str) -> str:
    """A cell whose keys may break behind their dots and marks, and whose hashes anywhere; no
    number breaks at its point."""
    keys = re.sub(r"(?<=\w)(?:[_/:]|\.(?!\d))(?=\w)", lambda mark: mark[0] + "\u200b", cell)
    return re.sub(rf"\w{{{_LONG_WORD},}}", lambda word: "\u200b".join(word[0]), keys)


def of_metadata(value: Mapping[str, Any]) -> str:
    """The table that the manuscript left as metadata: its texts are those that were printed."""
    write = long if value["long"] else tabular
    return write(value["header"], value["rows"], caption=value["caption"], label=value["name"])
