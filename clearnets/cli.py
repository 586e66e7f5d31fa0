"""The command line: one thin command per stage of the pipeline.

Nothing heavy is imported before a command runs, so that `clearnets --help` is instant.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from clearnets.config import Config

app = typer.Typer(
    name="clearnets",
    help="Are networks that are sparse by construction more interpretable than the SAEs and "
    "transcoders fitted to dense ones? Each stage of the comparison is a command; `dvc repro` "
    "runs them all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Experiment = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Work on this experiment (experiments/NAME.yaml) in its own place.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a parameter in the overlay of --experiment, e.g. train.epochs=2.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the parameters, what is read and written; do nothing."),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N. Changes no parameter.")
]
Threads = Annotated[
    int, typer.Option(min=0, metavar="N", help="CPU threads; 0 takes all there are.")
]
Layers = Annotated[
    str | None,
    typer.Option(metavar="LAYERS", help="Layers to work on, e.g. 0-7 or 2,5. Default: all."),
]
Mlp = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help="Feedforward: dense, sparse (GroupMax), sparse_topk or sparse_low_rank.",
    ),
]


CoderAux = Annotated[
    str,
    typer.Option(
        "--aux",
        metavar="FAMILY",
        help="sae, transcoder, skip-transcoder, or untrained: random-sae, random-transcoder.",
    ),
]
LatentAux = Annotated[
    str,
    typer.Option(
        "--aux",
        metavar="FAMILY",
        help="native, transcoder, sae, skip-transcoder, neurons, or a control: random-native, "
        "random-transcoder, random-sae, token-unigram.",
    ),
]


def _choice(option: str, value: str, known: tuple[str, ...]) -> str:
    from clearnets.artifacts import UserError

    if value not in known:
        raise UserError(f"unknown {option} {value!r}; choose one of {', '.join(known)}")
    return value


def _configure(
    experiment: str | None, assignments: list[str] | None, dry_run: bool = False
) -> Config:
    """Enter the experiment's place, with its overlay changed as asked, and load its parameters."""
    from clearnets import config, experiments
    from clearnets.artifacts import UserError

    if assignments and not experiment:
        raise UserError("--set changes results, so it needs a place: add --experiment NAME")
    if experiment and dry_run:
        return config.parse(experiments.resolve(experiment, assignments or []), experiment)
    if experiment:
        experiments.enter(experiment, assignments or [])
    return config.load()


def _run(
    stage: str,
    config: Config,
    *,
    dry_run: bool,
    device: str = "auto",
    threads: int = 0,
    **selection: Any,
) -> None:
    """Run one stage module, or show what it would do."""
    from importlib import import_module

    from clearnets.runtime import Runtime

    module = import_module(f"clearnets.stages.{stage}")
    if dry_run:
        _show(config, module.units(config, **selection))
        return
    module.run(config, runtime=Runtime(device, threads), **selection)


def _show(config: Config, units: list[Any]) -> None:
    from ruamel.yaml import YAML

    YAML().dump(config.model_dump(mode="json"), sys.stdout)
    reads = sorted({str(path) for unit in units for path in unit.inputs.values()})
    print("\n# reads")
    for path in reads:
        print(f"{path}{'' if Path(path).exists() else '  (missing)'}")
    print("# writes")
    for unit in units:
        print(f"{unit.out}{'  (up to date)' if unit.fresh() else ''}")


@app.command()
def data(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Write the corpus as tokens: tokenizer, packed splits, concept labels.

    Example: [bold]clearnets data[/bold]
    """
    config = _configure(experiment, assign, dry_run)
    _run("data", config, dry_run=dry_run, device=device, threads=threads)


@app.command()
def train(
    mlp: Mlp,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a transformer with dense or sparse feedforward layers.

    Example: [bold]clearnets train --mlp sparse[/bold]
    """
    from typing import get_args

    config = _configure(experiment, assign, dry_run)
    from clearnets.config import Mlp as Modes

    _choice("--mlp", mlp, get_args(Modes))
    _run("train", config, dry_run=dry_run, device=device, threads=threads, mlp=mlp)


@app.command()
def match(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Pair the sparse and the dense model at equal validation loss.

    Example: [bold]clearnets match[/bold]
    """
    _run("match", _configure(experiment, assign, dry_run), dry_run=dry_run)


@app.command()
def sparsify(
    aux: CoderAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train SAEs or transcoders on the pair's dense model, one per layer.

    Example: [bold]clearnets sparsify --aux transcoder[/bold]
    """
    config = _configure(experiment, assign, dry_run)
    from clearnets.config import CODER_FAMILIES

    _choice("--aux", aux, CODER_FAMILIES)
    _run("sparsify", config, dry_run=dry_run, device=device, threads=threads, family=aux)


@app.command()
def evaluate(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Measure the pair and its coders on held-out text: losses, ablations, fvu, FLOPs.

    Example: [bold]clearnets evaluate[/bold]
    """
    config = _configure(experiment, assign, dry_run)
    _run("evaluate", config, dry_run=dry_run, device=device, threads=threads)


@app.command()
def cache(
    aux: LatentAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Cache the activations of a family's latents in delphi's layout.

    Example: [bold]clearnets cache --aux native[/bold]
    """
    config = _configure(experiment, assign, dry_run)
    from clearnets.config import FAMILIES

    _choice("--aux", aux, FAMILIES)
    _run("cache", config, dry_run=dry_run, device=device, threads=threads, family=aux)


def _on_layers(
    stage: str,
    aux: str,
    layers: str | None,
    experiment: str | None,
    assign: list[str] | None,
    dry_run: bool,
) -> None:
    config = _configure(experiment, assign, dry_run)
    from clearnets.config import FAMILIES, parse_layers

    _choice("--aux", aux, FAMILIES)
    chosen = parse_layers(layers, config)
    _run(stage, config, dry_run=dry_run, family=aux, layers=chosen)


@app.command()
def explain(
    aux: LatentAux,
    layers: Layers = None,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Explain a sample of a family's latents.

    Example: [bold]clearnets explain --aux transcoder --layers 0-7[/bold]
    """
    _on_layers("explain", aux, layers, experiment, assign, dry_run)


@app.command()
def score(
    aux: LatentAux,
    layers: Layers = None,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Score the explanations of a family's latents on held-out text.

    Example: [bold]clearnets score --aux transcoder --layers 0-7[/bold]
    """
    _on_layers("score", aux, layers, experiment, assign, dry_run)


@app.command()
def collate(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Gather all results into small tidy tables in paper/results/.

    Example: [bold]clearnets collate[/bold]
    """
    _run("collate", _configure(experiment, assign, dry_run), dry_run=dry_run)


@app.command()
def figures(
    experiment: Experiment = None,
) -> None:
    """Draw the paper's figures from the tables in paper/results/, without training.

    Example: [bold]clearnets figures[/bold]
    """
    config = _configure(experiment, None)
    from clearnets import figures as module

    module.run(config)


@app.command()
def exp(
    name: Annotated[str | None, typer.Argument(help="The experiment; none lists them.")] = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Run a whole experiment, an overlay in experiments/, in its own place.

    Example: [bold]clearnets exp smoke[/bold]
    """
    from clearnets import experiments

    if name is None:
        experiments.show_all()
    else:
        experiments.run(name, assign or [], dry_run=dry_run)


def _guarded(call: Callable[[], Any]) -> int:
    """Run `call`; a user's mistake or a full disk becomes one line and exit code 2."""
    from clearnets.artifacts import UserError

    try:
        return call() or 0
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("clearnets: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = "the disk is full; free some space and run the same command to go on"
    print(f"clearnets: {message}", file=sys.stderr)
    return 2


def main() -> None:
    """Entry point of the command `clearnets`."""
    sys.exit(_guarded(lambda: app(standalone_mode=True)))


if __name__ == "__main__":
    main()
