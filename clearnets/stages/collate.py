"""Stage `collate`: all results of the experiment as tidy tables in `paper/results/`."""

from __future__ import annotations

from clearnets.config import Config
from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.artifacts import Unit
from clearnets.pipeline.runtime import Runtime


def units(config: Config) -> list[Unit]:
    """The one unit of this stage: the folder of tables."""
    from clearnets.analysis import rating_files, sources, transcript_sample
    from clearnets.generalization import observed

    rated = {path.name: artifacts.sha256(path) for path in rating_files.files(config)}
    return [
        Unit(
            stage="collate",
            out=paths.results(config.experiment),
            settings=({"ratings": rated} if rated else {})
            | config.dump(
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
            inputs={
                **sources.inputs(config),
                **transcript_sample.inputs(config),
                **observed.inputs(config),
            },
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the tables, where they are stale.

    Raises:
        UserError: a result is missing or damaged; it names the stage to run.
    """
    from clearnets.analysis import registry, sources, summary, transcript_sample
    from clearnets.generalization import summary as observatory
    from clearnets.generalization import tables as generalization

    for _, work in artifacts.build_all(units(config)):
        frames = registry.make(sources.read(config), config) if config.compares else {}
        frames |= generalization.make(config)
        registry.write(frames, work.out)
        compared = summary.markdown(frames, config) if config.compares else ""
        text = compared + observatory.markdown(frames)
        artifacts.write_text(work.out / "summary.md", text)
        said = [f"{artifacts.to_line(one)}\n" for one in transcript_sample.sample(config)]
        if said:
            artifacts.write_text(work.out / transcript_sample.FILE, "".join(said))
