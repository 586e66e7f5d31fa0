"""`clearnets browse`: every latent that was drawn, with all that is known of it, as one HTML file
that needs no server and no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.artifacts import Unit
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import Stage

PAGE = "index.html"


if TYPE_CHECKING:
    from clearnets.config import Config


STAGE = Stage(
    name="browse",
    does="Write a page to look at latents: one HTML file, opened without server or network.",
    example="clearnets browse",
    params=(
        *("experiment", "seeds", "families", "explain", "execute.families"),
        *("circuits.families", "circuits.linked", "browse"),
    ),
    reads=(
        *("artifacts/data", "artifacts/match", "artifacts/train", "artifacts/coders"),
        *("artifacts/cache", "artifacts/explain", "artifacts/score", "artifacts/similarity"),
        *("artifacts/concepts", "artifacts/transcripts", "artifacts/words"),
        *("artifacts/execute", "artifacts/effects", "artifacts/circuits", "artifacts/embed"),
    ),
    writes=("artifacts/browser",),
)


def units(config: Config) -> list[Unit]:
    """The one unit of this stage; an experiment that compares nothing has none."""
    from clearnets.browser import gather

    if not config.compares:
        return []
    return [
        Unit(
            stage="browse",
            out=paths.browser(),
            settings=config.dump(*STAGE.params),
            inputs=gather.inputs(config),
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the page, where it is stale.

    Raises:
        UserError: a result is missing or damaged; it names the stage to run.
    """
    from clearnets.browser.gather import gather
    from clearnets.browser.page import render

    for _, work in artifacts.build_all(units(config)):
        artifacts.write_text(work.out / PAGE, render(gather(config)))
    if config.compares:
        print(f"open {paths.browser() / PAGE} in a browser")
