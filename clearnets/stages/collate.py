"""Stage `collate`: all results of the experiment as tidy tables in `paper/results/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.artifacts import Unit
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.config import Config


STAGE = Stage(
    name="collate",
    does="Gather all results into small tidy tables in paper/results/.",
    example="clearnets collate",
    params=(
        *("experiment", "seeds", "models", "families", "skip", "coders.existing", "match"),
        *("execute.families", "circuits.families", "data.corpus"),
        *("explain.protocol", "score.n_examples_test", "score.n_non_activating"),
        *(
            "score.non_activating",
            "score.scorers",
            "concepts",
            "stability",
            "generalize.tasks",
            "tune",
            "collate",
        ),
    ),
    reads=(
        *("artifacts/data", "artifacts/match", "artifacts/train", "artifacts/evaluate"),
        *("artifacts/cache", "artifacts/explain", "artifacts/qualify", "artifacts/score"),
        *("artifacts/similarity", "artifacts/overlap", "artifacts/concepts"),
        *(
            "artifacts/execute",
            "artifacts/effects",
            "artifacts/intervene",
            "artifacts/circuits",
            "artifacts/sampled",
        ),
        *("artifacts/stability", "artifacts/probes", "artifacts/planted"),
        *("artifacts/generalize", "artifacts/tune", "paper/ratings"),
    ),
    small=("paper/results/{experiment}",),
    without_models=True,
)


def units(config: Config) -> list[Unit]:
    """The one unit of this stage: the folder of tables."""
    from clearnets.analysis import rating_files, sources, transcript_sample, tuning
    from clearnets.generalization import tables as generalization

    rated = {path.name: artifacts.sha256(path) for path in rating_files.files(config)}
    return [
        Unit(
            stage="collate",
            out=paths.results(config.experiment),
            settings=({"ratings": rated} if rated else {}) | config.dump(*STAGE.params),
            inputs={
                **sources.inputs(config),
                **transcript_sample.inputs(config),
                **generalization.inputs(config),
                **tuning.inputs(config),
            },
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the tables, where they are stale.

    Raises:
        UserError: a result is missing or damaged; it names the stage to run.
    """
    from clearnets.analysis import registry, sources, summary, transcript_sample, tuning
    from clearnets.generalization import summary as observatory
    from clearnets.generalization import tables as generalization

    for _, work in artifacts.build_all(units(config)):
        frames = registry.make(sources.read(config), config) if config.compares else {}
        frames |= generalization.make(config) | tuning.make(config)
        registry.write(frames, work.out)
        compared = summary.markdown(frames, config) if config.compares else ""
        text = compared + observatory.markdown(frames)
        text += tuning.markdown(frames["tuning"]) if "tuning" in frames else ""
        artifacts.write_text(work.out / "summary.md", text)
        said = [f"{artifacts.to_line(one)}\n" for one in transcript_sample.sample(config)]
        if said:
            artifacts.write_text(work.out / transcript_sample.FILE, "".join(said))
