"""Stage `collate`: all results of the experiment as tidy tables in `paper/results/`."""

from __future__ import annotations

from clearnets import artifacts, paths
from clearnets.artifacts import Unit
from clearnets.config import Config
from clearnets.runtime import Runtime


def units(config: Config) -> list[Unit]:
    """The one unit of this stage: the folder of tables."""
    from clearnets.tables import observed, sources

    return [
        Unit(
            stage="collate",
            out=paths.results(config.experiment),
            settings=config.dump(
                "experiment",
                "seeds",
                "models",
                "families",
                "coders.existing",
                "match",
                "explain.protocol",
                "score.n_examples_test",
                "score.n_non_activating",
                "score.non_activating",
                "score.scorers",
                "concepts",
                "generalize.tasks",
                "collate",
            ),
            inputs={**sources.inputs(config), **observed.inputs(config)},
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the tables, where they are stale.

    Raises:
        UserError: a result is missing or damaged; it names the stage to run.
    """
    from clearnets.tables import observatory, registry, sources, summary

    for _, work in artifacts.build_all(units(config)):
        frames = registry.make(sources.read(config) if config.compares else None, config)
        registry.write(frames, work.out)
        compared = summary.markdown(frames, config) if config.compares else ""
        text = compared + observatory.markdown(frames)
        artifacts.write_text(work.out / "summary.md", text)
