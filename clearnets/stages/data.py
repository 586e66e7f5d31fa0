"""The `data` stage: corpus, tokenizer, packed tokens and concept labels per split."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.pipeline import paths, processes
from clearnets.pipeline.artifacts import Unit, Work, build_all, check_unchanged, publish, read_json
from clearnets.pipeline.progress import note
from clearnets.pipeline.runtime import Runtime, progress, tokenizer_threads
from clearnets.pipeline.stage import Source, Stage

if TYPE_CHECKING:
    from clearnets.config import Config

STAGE = Stage(
    name="data",
    does="Write the corpus as tokens: tokenizer, packed splits, concept labels.",
    example="clearnets data",
    params=("data",),
    writes=("artifacts/data",),
    metrics=True,
)


def units(config: Config) -> list[Unit]:
    """Return the one unit of this stage; its settings hold the hashes of local files."""
    from clearnets.data.corpora import fingerprints
    from clearnets.data.pretrained_tokenizer import tokenizer_fingerprints

    settings: dict[str, Any] = config.dump(*STAGE.settings)
    data = config.data
    _know_files(config, settings, "files", data.corpus, fingerprints(data.corpus))
    found = tokenizer_fingerprints(data.tokenizer)
    _know_files(config, settings, "tokenizer_files", data.tokenizer, found)
    return [Unit(stage="data", out=paths.data(), settings=settings, inputs={})]


def _know_files(
    config: Config, settings: dict[str, Any], key: str, source: Any, found: dict[str, str]
) -> None:
    """Put the hashes of a source's local files among the unit's settings.

    Raises:
        UserError: they are not those that `clearnets exp` recorded.
    """
    if not found:
        return
    name = getattr(source, "path", None) or source.name
    check_unchanged(name, found, source.fingerprint, experiment=config.experiment)
    settings[key] = found


def sources(config: Config) -> Iterator[Source]:
    """Yield a local corpus, and a tokenizer that was not trained here."""
    from clearnets.data.corpora import fingerprints
    from clearnets.data.pretrained_tokenizer import tokenizer_fingerprints

    corpus, tokenizer = config.data.corpus, config.data.tokenizer
    if corpus.kind == "local":
        yield Source(("data", "corpus"), "path", partial(fingerprints, corpus))
    if tokenizer.kind != "trained":
        identity = partial(tokenizer_fingerprints, tokenizer)
        yield Source(("data", "tokenizer"), "name", identity)


def run(config: Config, *, runtime: Runtime) -> None:
    """Write `artifacts/data` and its metrics."""
    from clearnets.data.corpora import open_corpus
    from clearnets.data.splits import build

    workers = processes.cores()
    for _, work in build_all(units(config)):
        # Nothing is resumed: files that a killed run left are in the way.
        _clear(work)
        tokens = config.data.tokens
        opened = open_corpus(config.data.corpus, tokens, workers=workers, waiting=work.state)
        total = sum(tokens.model_dump().values())
        try:
            with (
                tokenizer_threads(workers),
                opened as corpus,
                progress("data", total, "tokens") as bar,
            ):
                build(config.data, corpus, work.out, work.state, bar)
        except UserError:
            _clear(work)
            raise
    stats = paths.data() / "stats.json"
    publish(stats, paths.metrics("data"))
    if short := _short(read_json(stats)["splits"], config.data.ctx_len):
        note(f"the corpus is smaller than data.tokens: {short}; give more text, or ask for less")


def _short(splits: dict[str, Any], ctx_len: int) -> str:
    """Return in words which splits lack more tokens than a row has; empty if none does."""
    return ", ".join(
        f"{name} has {part['tokens']:,} of {part['tokens_wanted']:,} tokens"
        for name, part in splits.items()
        if part["tokens"] + ctx_len <= part["tokens_wanted"]
    )


def _clear(work: Work) -> None:
    for folder in (work.out, work.state):
        shutil.rmtree(folder)
        folder.mkdir()
