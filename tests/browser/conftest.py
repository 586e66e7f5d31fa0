from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with all that the page is made from; no test may change it."""
    import small_world

    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        small_world.make()
    return folder
