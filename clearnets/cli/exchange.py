"""Commands that exchange files with others: checkpoints, runs of delphi, a deposit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clearnets.cli.options import LATENTS, Experiment, Layers, Mlp, Seed
from clearnets.cli.place import Place, move_to_run


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A Lightning (.ckpt), torch (.pt, .bin) or safetensors file, or a folder with "
            "one; or a GGUF file, or package:NAME of an installed package with one."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The new Hugging Face folder.")],
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What the checkpoint does not say, in the original's names, e.g. "
            "num_attention_heads=16, of a GPT-Neo num_heads=16. A config.json beside the "
            "checkpoint is read too.",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint of the original clearnets, or a GGUF file, into a Hugging Face folder.

    Example: [bold]clearnets import last.ckpt models/dense --set num_attention_heads=16[/bold]
    """
    from clearnets import UserError
    from clearnets.autointerp.llm import gguf_client
    from clearnets.models import gguf, original
    from clearnets.pipeline import experiments

    packed = str(checkpoint).startswith("package:")
    model: Any
    if packed or checkpoint.suffix == gguf.SUFFIX:
        if assign:
            raise UserError("a GGUF file says everything itself; remove --set")
        model = gguf.run(gguf_client.locate(str(checkpoint)) if packed else checkpoint, out)
    else:
        model = original.run(checkpoint, out, experiments.parse_assignments(assign or []))
    kind = getattr(model.config, "mlp", "dense")
    print(f"{out}: {model.config.model_type}, {kind}, {model.num_parameters():,} parameters")


def export(
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    aux: Annotated[str, LATENTS],
    layers: Layers = None,
    seed: Seed = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="JUDGE",
            help="Whose answers: rules, or language (the default where a language model judges).",
        ),
    ] = None,
    firing_counts: Annotated[
        bool,
        typer.Option("--firing-counts", help="Also write delphi's log/hookpoint_firing_counts.pt."),
    ] = False,
    experiment: Experiment = None,
) -> None:
    """Write a family's explanations and scores in the file layout of delphi's runs.

    Example: [bold]clearnets export --aux sae /tmp/sae[/bold]
    """
    from clearnets.autointerp.delphi import export as module
    from clearnets.config import parse_choice, parse_layers
    from clearnets.pipeline.stage import table

    if by is not None:
        by = parse_choice("--by", by, ("rules", "language"))
    place = Place.of(experiment)
    family = place.family(aux)
    out = out.absolute()
    move_to_run(experiment)
    explanations, files = module.run(
        place.config,
        table()["score"].module.units(
            place.config, family=family, layers=parse_layers(layers, place.config)
        ),
        seed=seed,
        by=by,  # pyright: ignore[reportArgumentType]
        firing_counts=firing_counts,
        out=out,
    )
    print(f"{out}: {explanations:,} explanations, {files:,} files of scores")


def export_model(
    out: Annotated[Path, typer.Argument(help="The new Hugging Face folder.")],
    mlp: Mlp,
    seed: Seed = None,
    experiment: Experiment = None,
) -> None:
    """Write a model with its tokenizer as a folder that transformers loads anywhere.

    It is the checkpoint that the comparison reads. A dense one is plain GPT-NeoX; the others load
    after [bold]import clearnets.models.loading[/bold].

    Example: [bold]clearnets export-model --mlp dense /tmp/dense[/bold]
    """
    from clearnets.config import parse_mlp, parse_seed
    from clearnets.models import standalone

    place, out = Place.of(experiment), out.absolute()
    parse_mlp(mlp, place.config)
    number = parse_seed(seed, place.config)
    move_to_run(experiment)
    model = standalone.run(mlp, out, seed=number)
    print(f"{out}: {model.config.model_type}, {mlp}, {model.num_parameters():,} parameters")


def import_scores(
    run: Annotated[Path, typer.Argument(help="The folder of a run of delphi.")],
    out: Annotated[Path, typer.Argument(help="The new folder of tables.")],
    aux: Annotated[str, LATENTS],
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The run's judge, where it has qualified; without, its scores are called a "
            "demonstration.",
        ),
    ] = None,
) -> None:
    """Read explanations and scores of a run of delphi into tables like ours.

    Example: [bold]clearnets import-scores results/my-run /tmp/theirs --aux sae[/bold]
    """
    from clearnets import config
    from clearnets.analysis import delphi_import
    from clearnets.config import parse_choice
    from clearnets.families import FAMILIES

    parse_choice("--aux", aux, list(FAMILIES))
    count = delphi_import.run(run, out, family=aux, judge=judge, settings=config.load().collate)
    print(f"{out}: tables of {count:,} latents")


def bundle(
    out: Annotated[Path, typer.Argument(help="The new folder, or the new file: NAME.tar.")],
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="Leave the artifacts of this stage out, e.g. cache."),
    ] = None,
) -> None:
    """Write a deposit: all artifacts and the source, as a remote for `dvc pull`.

    Example: [bold]clearnets bundle ../deposit.tar[/bold]
    """
    from clearnets.provenance import deposit as module

    size = module.run(out, without=tuple(dict.fromkeys(without or ())))
    print(f"{out}: {size / 1e6:,.1f} MB")
