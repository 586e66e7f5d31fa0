"""The golden guard finds each output that differs and takes the working tree as it is."""

from __future__ import annotations

from pathlib import Path

import golden


def test_each_output_that_differs_is_named(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, score, weight in ((before, "0.5", 1), (after, "0.25", 2)):
        (folder / "artifacts/coders").mkdir(parents=True)
        (folder / "artifacts/means.csv").write_text(f"family,mean\n{'x' * 90},{score}\nb,1\n")
        (folder / "artifacts/same.json").write_text("{}")
        (folder / "artifacts/manifest.json").write_text(score)
        (folder / f"artifacts/of-{folder.name}.txt").write_text("")
        (folder / "artifacts/coders/sae.safetensors").write_bytes(bytes([255, weight]))
    assert list(golden.differences(before, after)) == [
        "artifacts/coders/sae.safetensors: 2 bytes became 2, of other content",
        f"artifacts/means.csv: line 2: '{'x' * 37},0.5' became '{'x' * 37},0.25'",
        "artifacts/of-after.txt: is new",
        "artifacts/of-before.txt: is missing",
    ]
    ignored = ["artifacts/coders/*", "*/of-*.txt"]
    assert [line.split(":")[0] for line in golden.differences(before, after, ignored)] == [
        "artifacts/means.csv"
    ]
    assert list(golden.differences(before, before)) == []


def test_the_present_state_has_uncommitted_and_new_files_but_none_that_git_ignores(tmp_path):
    golden.git("init", "-q", at=tmp_path)
    for name, text in ((".gitignore", "/out\n"), ("code.py", "x = 1\n"), ("gone.py", "")):
        Path(name).write_text(text)
    golden.git("add", "-A", at=tmp_path)
    Path("code.py").write_text("x = 2\n")
    Path("new.py").write_text("")
    Path("out").write_text("")
    Path("gone.py").unlink()
    tree = golden.present_tree(tmp_path)
    listed = golden.git("ls-tree", "--name-only", tree, at=tmp_path)
    assert listed.split() == [".gitignore", "code.py", "new.py"]
    assert golden.git("show", f"{tree}:code.py", at=tmp_path) == "x = 2"
    status = golden.git("status", "--short", at=tmp_path)
    assert "?? new.py" in status, "the checkout's own index is left alone"
