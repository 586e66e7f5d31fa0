"""Lines of progress where there is no terminal."""

from __future__ import annotations

from clearnets.pipeline.progress import progress


def test_more_than_was_foreseen_leaves_no_time_below_zero(capsys):
    with progress("count", 4, "rows") as bar:
        for _ in range(5):
            bar.advance()
    assert capsys.readouterr().err.endswith(", 0 s left\n")
