"""Tables as LaTeX, for those who write elsewhere: booktabs, one file each, nothing but numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    }
)


def escaped(text: str) -> str:
    """`text` as LaTeX sets it. A bracket is put in braces: behind a row's end it would be read as
    that end's argument."""
    return text.translate(_SPECIAL)


def tabular(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str
) -> str:
    """A floating table, first column left, all others right; needs the package booktabs.

    Raises:
        ValueError: a row is longer or shorter than the header.
    """
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"table {label}: a row is not as long as the header")
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (header, *rows)]
    return "\n".join(
        (
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{escaped(caption)}}}",
            f"  \\label{{tab:{label}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"    \toprule",
            f"    {lines[0]}",
            r"    \midrule",
            *(f"    {line}" for line in lines[1:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        )
    )


def of_metadata(value: Mapping[str, Any]) -> str:
    """The table that the manuscript left as metadata: its texts are those that were printed."""
    name = value["name"]
    return tabular(value["header"], value["rows"], caption=value["caption"], label=name)
