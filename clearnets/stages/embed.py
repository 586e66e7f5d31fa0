"""`clearnets embed`: all windows of the splits that want it as vectors, near where they mean alike.

With them `explain` and `score` find silent windows that are similar in meaning to active ones.
Where none are drawn in that way, nothing is embedded and no model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    import numpy as np

    from clearnets.autointerp.encoder import Encoder
    from clearnets.config import Config

# Windows between two steps of the progress bar.
CHUNK = 1024


STAGE = Stage(
    name="embed",
    does="Embed windows of text, where non-activating ones are drawn by meaning.",
    example="clearnets embed",
    params=("explain.window", "embed"),
    reads=("artifacts/data",),
    writes=("artifacts/embed",),
    on_device=True,
)


def units(config: Config) -> list[Unit]:
    """The one unit of this stage, a file per split."""
    return [
        Unit(
            stage="embed",
            out=paths.embed(),
            settings=config.dump(*STAGE.settings),
            inputs={"data": paths.data()},
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Embed the windows of each split; a killed run goes on behind the last split."""
    for _, work in build_all(units(config)):
        if config.embed.splits:
            from clearnets.autointerp.encoder import Encoder
            from clearnets.latents import window_embeddings

            encoder = Encoder(config.embed, runtime.torch_device())
            for split in config.embed.splits:
                path = window_embeddings.place(work.out, split)
                if not path.exists():
                    window_embeddings.write(path, _embed(encoder, split, config.explain.window))


def _embed(encoder: Encoder, split: str, size: int) -> np.ndarray:
    import numpy as np

    from clearnets.data.tokens import open_tokens
    from clearnets.latents.examples import windows_of
    from clearnets.latents.window_embeddings import texts_of

    store = open_tokens(paths.data())
    tokens_RS = store.split(split)
    texts = texts_of(windows_of(store.counted(tokens_RS), size=size), tokens_RS, store.strings())
    parts = []
    with progress(f"embed {split}", len(texts), "windows") as bar:
        for first in range(0, len(texts), CHUNK):
            parts.append(encoder.encode(texts[first : first + CHUNK]))
            bar.advance(len(parts[-1]))
    return np.concatenate(parts)
