"""`clearnets execute`: run a model on explanations in the place of its latents.

Every latent of every layer is explained by `tokens` on the split `explain`, as `clearnets explain`
does a sample of them. Then the model runs on `valid` with the simulated latents in the place of the
real ones, in each layer alone and in all at once, and with what is better or worse than rules by
design: see `clearnets.autointerp.execution.fit`. Untrained coders have a decoder that is fitted to
their codes, as what they begin with is zero or random; neurons have a bias that makes up for the
mean of all that are not among the k largest.

latents/<hookpoint>.jsonl   of each latent its record as in explanations.jsonl; `on` and `off`, its
                            simulated activation where its sentence fires and elsewhere; `norm`, of
                            its decoder's row; `error` and `variance`, sums over the held-out
                            positions of squared errors of the simulation and of the mean
rows.safetensors            `tokens` predicted in each row, `document`, the row's, and `nll` and
                            `kl`, sums over these tokens by place, stand-in and row
summary.json                the names of the stand-ins; by layer, how many latents there are and
                            how well single ones are simulated; the share that rules keep, by place

A killed run continues behind the last explained latent, or the last batch of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    JsonlWriter,
    Unit,
    Work,
    build_all,
    read_json,
    read_jsonl,
    write_bytes,
    write_json,
    write_jsonl,
)
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import EXECUTED, Stage

if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy.sparse import csc_array

    from clearnets.autointerp.execution import Decoder, Passage
    from clearnets.autointerp.texts import Texts
    from clearnets.coders.batches import Batch
    from clearnets.coders.substitution import Layer
    from clearnets.coders.written import Written
    from clearnets.config import Config, Family
    from clearnets.data.tokens import TokenStore

SPLIT, HELD_OUT = "explain", "valid"
LATENTS, TOGETHER = "latents", "all"


STAGE = Stage(
    name="execute",
    does="Run a model on explanations in the place of its latents: how much of it is left?",
    example="clearnets execute --aux transcoder",
    over=EXECUTED,
    params=("seeds", "threads", "model.k", "explain", "execute"),
    reads=(
        *("artifacts/data", "artifacts/words", "artifacts/match", "{source}"),
        *("artifacts/cache/{item}", "artifacts/embed"),
    ),
    writes=("artifacts/execute/{item}",),
    metrics=True,
    on_device=True,
)


def units(config: Config, *, family: Family) -> list[Unit]:
    """One unit per seed."""
    from clearnets.autointerp.sampling import needed

    return [
        Unit(
            stage="execute",
            out=paths.execute(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs={
                **paths.read_by(FAMILIES[family], seed),
                "words": paths.words(),
                "cache": paths.cache(family, seed, SPLIT),
                **needed(
                    config.explain.non_activating,
                    family,
                    embed=paths.embed(),
                    coders=paths.coders(family, seed),
                ),
            },
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, family: Family) -> None:
    """Explain all latents of a family, and run its model on the explanations, for every seed."""
    from clearnets.autointerp.execution import SUMMARY
    from clearnets.autointerp.texts import open_texts

    texts: Texts | None = None
    wanted = units(config, family=family)
    for unit, work in build_all(wanted):
        texts = texts or open_texts(SPLIT)
        for point in config.hookpoints(family):
            _explain(config, unit, work, point, texts)
        _execute(config, unit, work, texts, runtime.torch_device())
    metrics = {
        f"seed-{unit.settings['seed']}": read_json(unit.out / SUMMARY)["share_kept"]
        for unit in wanted
    }
    write_json(paths.metrics(f"execute-{family}"), metrics)


def _explain(config: Config, unit: Unit, work: Work, point: str, texts: Texts) -> None:
    """Explain the latents of a layer that have no record yet."""
    from clearnets.autointerp.explained_layer import ExplainedLayer

    family, seed = unit.settings["family"], unit.settings["seed"]
    layer = ExplainedLayer.of(config.explain, (family, point, seed), unit.inputs, texts)
    every, label = range(layer.cache.num_latents), f"execute {family} seed {seed} {point}"
    with (
        JsonlWriter(_explained(work, point)) as writer,
        progress(label, len(every), "latents") as bar,
    ):
        bar.advance(len(writer.done))
        for latent in every[len(writer.done) :]:
            writer.append(layer.explain(latent))
            bar.advance()


def _explained(work: Work, point: str) -> Path:
    return work.state / f"{point}.jsonl"


def _execute(config: Config, unit: Unit, work: Work, texts: Texts, device: torch.device) -> None:
    """Run the model on explanations, and write what it predicts."""
    import numpy as np
    from safetensors.numpy import load_file, save

    from clearnets.autointerp.execution import EXACT, ROWS, SUMMARY, kept
    from clearnets.coders.substitution import measure

    points = config.hookpoints(unit.settings["family"])
    label = f"execute {unit.settings['family']} seed {unit.settings['seed']}"
    run = _Run.of(config, unit, texts, device)
    with progress(f"{label}: fit", len(points), "layers") as bar:
        layers = [bar.advance() or layer for layer in run.fit(work)]
    names, parts = [EXACT, *layers[0].stand_ins], []
    with progress(f"{label}: run", len(run.shown.row_R), "rows") as bar:
        for number, (batch, positions) in enumerate(run.shown.batches(device)):
            part = work.state / f"batch-{number}.safetensors"
            if not part.exists():
                found = measure(run.model, layers, batch, positions, names)
                write_bytes(part, save(found))
            parts.append(load_file(part))
            bar.advance(len(batch.tokens_BS))
    sums = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    sums["document"] = run.shown.documents
    write_bytes(work.out / ROWS, save(sums))
    share_kept = kept(sums["kl"], [*points, TOGETHER], names)
    summary = {"stand_ins": names, "layers": run.latents, "share_kept": share_kept}
    write_json(work.out / SUMMARY, summary)


@dataclass(frozen=True)
class _Shown:
    """Rows of a split, the shortest first.

    Attributes:
        row_R: their numbers in the split.
    """

    store: TokenStore
    texts: Texts
    row_R: np.ndarray

    @classmethod
    def of(cls, texts: Texts, store: TokenStore, count: int) -> _Shown:
        """Choose at most `count` rows, evenly spaced."""
        import numpy as np

        from clearnets.coders.batches import evenly_spaced

        row_R = evenly_spaced(len(texts.tokens_RS), count)
        length_R = (texts.tokens_RS[row_R] != store.pad).sum(axis=1)
        return cls(store, texts, row_R[np.argsort(length_R, kind="stable")])

    @cached_property
    def tokens_RS(self) -> np.ndarray:
        """Their tokens."""
        return self.texts.tokens_RS[self.row_R]

    @cached_property
    def counted_RS(self) -> np.ndarray:
        """Their counted positions."""
        return self.store.counted(self.tokens_RS)

    @cached_property
    def counted_all(self) -> np.ndarray:
        """Counted positions of the whole split."""
        return self.store.counted(self.texts.tokens_RS)

    def passage(self, records: Sequence[Mapping[str, Any]], codes_NL: csc_array) -> Passage:
        """Return one layer's latents, and where their explanations fire, given its records."""
        from clearnets.autointerp.execution import Passage, fires, rules_of, whole_rows

        rows = self.texts.of(self.store.ctx_len).rows
        text = whole_rows(rows, self.row_R)
        found = {kind: fires(text, rules) for kind, rules in rules_of(records).items()}
        return Passage(self.tokens_RS[self.counted_RS], codes_NL, found)

    @property
    def documents(self) -> np.ndarray:
        """Numbers of their documents, (R,)."""
        from clearnets.autointerp.execution import documents

        if self.store.open_ended:
            return self.row_R
        return documents(self.texts.tokens_RS, self.store.eos)[self.row_R]

    def batches(self, device: torch.device) -> Iterator[tuple[Batch, slice]]:
        """Yield batches of rows, and where their counted positions lie among those of all rows."""
        from clearnets.coders.batches import BATCH_ROWS, make_batch

        end, size = 0, self.store.rows_at_once(BATCH_ROWS)
        for start in range(0, len(self.row_R), size):
            batch = make_batch(self.store, self.tokens_RS[start : start + size], device)
            begin, end = end, end + int(batch.counted_BS.sum())
            yield batch, slice(begin, end)


@dataclass(frozen=True)
class _Run:
    """A family's model, and the text for which its latents are simulated.

    Attributes:
        written: what its latents write, by layer.
        fitted, shown: the text for calibration, and that on which the model runs.
        latents: by layer that has been fitted, how well its latents are simulated.
    """

    config: Config
    unit: Unit
    model: Any
    written: Sequence[Written]
    fitted: _Shown
    shown: _Shown
    latents: dict[str, dict[str, float]]

    @classmethod
    def of(cls, config: Config, unit: Unit, texts: Texts, device: torch.device) -> _Run:
        """Open the family's model and latents."""
        from clearnets.autointerp.texts import open_texts
        from clearnets.coders.written import open_written
        from clearnets.data.tokens import open_tokens
        from clearnets.latents.readers import open_model

        family, seed = unit.settings["family"], unit.settings["seed"]
        model = open_model(family, seed, device).model.requires_grad_(False)
        coders = unit.inputs.get("coders")
        written = open_written(model, FAMILIES[family], coders, k=config.model.k)
        store, settings = open_tokens(paths.data()), config.execute
        return cls(
            config,
            unit,
            model,
            written,
            _Shown.of(texts, store, settings.fit_rows),
            _Shown.of(open_texts(HELD_OUT), store, settings.rows),
            {},
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def fit(self, work: Work) -> Iterator[Layer]:
        """Yield what stands in for the latents of each layer; write what is told of each latent."""
        outputs, codes = self._outputs(), self._codes()
        for number, point in enumerate(self.config.hookpoints(self.unit.settings["family"])):
            yield self._layer(work, point, number, outputs[number], codes[number])

    def _layer(
        self, work: Work, point: str, number: int, output_ND: np.ndarray, codes_NL: csc_array
    ) -> Layer:
        import numpy as np

        from clearnets.autointerp import execution
        from clearnets.coders.substitution import Layer
        from clearnets.latents.store import load_layer

        records, settings = read_jsonl(_explained(work, point)), self.config.execute
        cache = load_layer(self.unit.inputs["cache"], point)
        fitted = self.fitted.passage(
            records, execution.cached_codes(cache, self.fitted.counted_all, self.fitted.row_R)
        )
        shown = self.shown.passage(records, codes_NL)
        written, decoder = self._decoder(number, fitted.codes_NL, output_ND)
        names = (self.unit.settings["family"], point, self.unit.settings["seed"])
        rng = np.random.default_rng(seed_for(settings.seed, "shuffled", *names))
        explained_L = np.array([record["explanation"] is not None for record in records])
        order_L = execution.others(explained_L, rng)
        made = execution.fit(
            fitted, shown, output_ND, decoder, order_L=order_L, penalty=settings.ridge
        )
        told = execution.tell(records, made, shown, decoder)
        write_jsonl(work.out / LATENTS / f"{point}.jsonl", told)
        self.latents[point] = execution.pooled(told)
        stand_ins = {name: one.output for name, one in made.stand_ins.items()}
        if written.whole:  # The latents' mean by token is the output's.
            del stand_ins["token-latents"]
        return Layer(written, stand_ins)

    def _decoder(
        self, number: int, codes_NL: csc_array, output_ND: np.ndarray
    ) -> tuple[Written, Decoder]:
        """Return what a layer's latents write, with what is fitted to their codes."""
        from clearnets.autointerp.execution import Decoder

        written = self.written[number]
        decoder = Decoder(*(x.cpu().double().numpy() for x in (written.weight_LD, written.bias_D)))
        refits = FAMILIES[self.unit.settings["family"]].refits
        if refits is None:
            return written, decoder
        decoder = decoder.refit(refits, codes_NL, output_ND, self.config.execute.ridge)
        return written.decoding(decoder.weight_LD, decoder.bias_D), decoder

    def _outputs(self) -> list[np.ndarray]:
        """Return by layer what the feedforward writes on the text for calibration, (N, D)."""
        import numpy as np

        from clearnets.coders.substitution import outputs

        found = [
            [y_ND.cpu().numpy() for y_ND in outputs(self.model, batch, self.written)]
            for batch, _ in self.fitted.batches(self.device)
        ]
        return [np.concatenate(parts) for parts in zip(*found)]

    def _codes(self) -> list[csc_array]:
        """Return by layer the latents' activations where the model will run."""
        from scipy.sparse import csc_array, vstack

        from clearnets.autointerp.execution import sparse_codes
        from clearnets.coders.substitution import codes

        found = []
        for batch, _ in self.shown.batches(self.device):
            read = codes(self.model, batch, self.written)
            sizes = (len(written.weight_LD) for written in self.written)
            found.append(
                [
                    sparse_codes(acts.cpu().numpy(), indices.cpu().numpy(), size)
                    for (acts, indices), size in zip(read, sizes)
                ]
            )
        return [csc_array(vstack(parts, format="csc")) for parts in zip(*found)]
