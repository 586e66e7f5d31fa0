"""Folders that a user asks for: whole or not at all, and one line where there can be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearnets import UserError
from clearnets.pipeline.folders import check_new, made_whole


def test_a_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(ZeroDivisionError), made_whole(out) as part:
        (part / "a").write_text("half")
        raise ZeroDivisionError
    assert list((tmp_path / "deep").iterdir()) == []
    with made_whole(out) as part:
        (part / "a").write_text("whole")
    assert (out / "a").read_text() == "whole"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_is_there_is_kept(tmp_path):
    with pytest.raises(UserError, match="is there already"), made_whole(tmp_path):
        pass
    with pytest.raises(UserError, match="is there already"):
        check_new(tmp_path)


@pytest.mark.parametrize("place", ["file/out", "/proc/nowhere/out", "x" * 300])
def test_where_there_can_be_no_folder_is_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as error, made_whole(tmp_path / place):
        pass
    assert "cannot be written" in str(error.value)
    assert "name a folder elsewhere" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_nobody_may_look_at_is_one_line(monkeypatch):
    def forbidden(self, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbidden)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        check_new(Path("closed/out"))
