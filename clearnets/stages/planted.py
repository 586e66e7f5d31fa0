"""`clearnets planted`: measures of latents on a dictionary that is known.

measures.csv    a seed, a dictionary (known ones of known quality, and trained coders by their
                selection) and a measure: its value, the higher the better. `truth` says how well
                the dictionary's directions were recovered, which the other measures cannot see
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, Work, build_all, write_table
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    import numpy as np

    from clearnets.config import Config
    from clearnets.config import Planted as Settings
    from clearnets.latents.planted_truth import World

TABLE = "measures.csv"
COLUMNS = ("seed", "dictionary", "trained", "measure", "value")
SELECTIONS = ("topk", "groupmax", "batchtopk", "jumprelu", "matryoshka")
# Tokens of a feature on either split from which it is looked for.
_LEAST = 20
_LIVE, _SHARED = 20, 0.7

STAGE = Stage(
    name="planted",
    does="Test measures of latents on a dictionary that is known.",
    example="clearnets planted",
    params=("planted",),
    small=("artifacts/planted",),
    on_device=True,
)


def units(config: Config) -> list[Unit]:
    """Return the one unit of this stage."""
    return [
        Unit(
            stage="planted",
            out=paths.planted(),
            settings=config.dump(*STAGE.settings),
            inputs={},
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the table."""
    settings = config.planted
    for _, work in build_all(units(config)):
        runtime.torch_device()  # Sets up torch; so small coders are trained on the CPU.
        rows: list[dict[str, Any]] = []
        with progress("planted", len(settings.seeds), "worlds") as bar:
            for seed in settings.seeds:
                rows += _measured(settings, seed, work)
                bar.advance()
        write_table(work.out / TABLE, COLUMNS, rows)


def _measured(settings: Settings, seed: int, work: Work) -> Iterator[dict[str, Any]]:
    """Yield the rows of one world."""
    import numpy as np

    from clearnets.latents.planted_truth import World

    def rng(*names: str | int) -> np.random.Generator:
        return np.random.default_rng(seed_for(seed, "planted", *names))

    world = World.of(settings, rng("world"))
    drawn = {name: world.draw(settings.tokens, rng(name)) for name in ("fit", "test")}
    made = {
        **{(name, False): pair for name, pair in _known(settings, world, drawn, rng).items()},
        **{(name, True): pair for name, pair in _trained(settings, seed, drawn, work).items()},
    }
    for (name, trained), (own, other) in made.items():
        values = {
            "truth": _recovered(own, world),
            "explained": own["explained"],
            "stability": _stability(own, other),
            **_probed(own, drawn),
        }
        for measure, value in values.items():
            row = {"seed": seed, "dictionary": name, "trained": trained}
            yield {**row, "measure": measure, "value": value}


Made = Mapping[str, Any]
Drawn = Mapping[str, tuple["np.ndarray", "np.ndarray"]]


def _known(
    settings: Settings, world: World, drawn: Drawn, rng: Any
) -> dict[str, tuple[Made, Made]]:
    """Return two dictionaries of each quality, drawn independently, with their codes."""
    import numpy as np

    from clearnets.latents.planted_truth import DICTIONARIES, fvu, pursue

    steps = max(1, round(settings.active))

    def made(name: str, copy: int) -> Made:
        draw = DICTIONARIES[name]
        direction_LD = draw(world, np.deg2rad(settings.angle), rng(name, copy))
        codes = {split: pursue(x_TD, direction_LD, steps) for split, (x_TD, _) in drawn.items()}
        explained = 1 - fvu(drawn["test"][0], codes["test"] @ direction_LD)
        return {"directions": direction_LD, "explained": explained, **codes}

    return {name: (made(name, 0), made(name, 1)) for name in DICTIONARIES}


def _trained(
    settings: Settings, seed: int, drawn: Drawn, work: Work
) -> dict[str, tuple[Made, Made]]:
    """Return two coders of each selection with different initial weights, and untrained ones."""
    import numpy as np

    from clearnets.coders.planted_coders import encode, train_coder
    from clearnets.latents.planted_truth import fvu

    def made(selection: Any, steps: int, copy: int) -> Made:
        coder = train_coder(
            drawn["fit"][0],
            selection=selection,
            num_latents=settings.features,
            k=max(1, round(settings.active)),
            steps=steps,
            seed=seed_for(seed, "coder", copy),
            state=work.state / "unused.pt",
        )
        codes = {split: encode(coder, x_TD) for split, (x_TD, _) in drawn.items()}
        direction_LD = coder.W_dec.detach().double().numpy()
        length_L1 = np.linalg.norm(direction_LD, axis=1, keepdims=True)
        return {
            "directions": direction_LD / np.maximum(length_L1, 1e-12),
            "explained": 1 - fvu(drawn["test"][0], codes["test"][1]),
            **{split: code_TL for split, (code_TL, _) in codes.items()},
        }

    kinds = {name: (name, settings.steps) for name in SELECTIONS if settings.steps}
    kinds["untrained"] = ("topk", 0)
    return {name: (made(*kind, 0), made(*kind, 1)) for name, kind in kinds.items()}


def _recovered(own: Made, world: World) -> float:
    from clearnets.latents.planted_truth import recovered

    return recovered(own["directions"], world)


def _stability(own: Made, other: Made) -> float:
    """Return the share of live latents with a counterpart in another dictionary of the kind."""
    import numpy as np
    from scipy.sparse import csr_array

    from clearnets.latents.stability import Activity, correlations, match

    one, two = (Activity(csr_array(part["test"]), *part["test"].shape) for part in (own, other))
    live_L = one.active_L >= _LIVE
    matched = match(correlations(one, two))
    return float((matched.correlation_A[live_L] >= _SHARED).mean()) if np.any(live_L) else 0.0


def _probed(own: Made, drawn: Drawn) -> dict[str, float]:
    """Return the mean F1 over features of probes on one latent and on five."""
    import numpy as np
    from scipy.sparse import csr_array

    from clearnets.latents.probes import Features, probe

    truth = {split: (strength_TF > 0).T.astype(float) for split, (_, strength_TF) in drawn.items()}
    common = np.minimum(truth["fit"].sum(axis=1), truth["test"].sum(axis=1)) >= _LEAST
    layer = Features(csr_array(own["fit"]), csr_array(own["test"]), truth["fit"])
    return {
        f"probe F1, {size} latent{'s' * (size > 1)}": float(
            np.mean(
                [
                    probe([layer], feature, truth["test"][feature], size).f1
                    for feature in np.flatnonzero(common).tolist()
                ]
            )
        )
        for size in (1, 5)
    }
