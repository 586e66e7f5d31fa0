"""The command line: one thin command per stage of the pipeline.

Nothing heavy is imported before a command runs, so that `clearnets --help` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
Processes = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        envvar="CLEARNETS_PROCESSES",
        help="Processes that train a model together, each on a GPU where there are GPUs. Changes "
        "no parameter.",
    ),
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
        help="sae, transcoder, skip-transcoder; untrained: random-sae, random-transcoder; or "
        "trained on the untrained model: step0-sae, step0-transcoder.",
    ),
]
LatentAux = Annotated[
    str,
    typer.Option(
        "--aux",
        metavar="FAMILY",
        help="native, transcoder, sae, skip-transcoder, neurons, or a control: random-native, "
        "random-transcoder, random-sae, step0-transcoder, step0-sae, token-unigram.",
    ),
]


@dataclass(frozen=True)
class _Place:
    """Where a command works: the checkout, or an experiment's worktree with its `values`."""

    config: Config
    values: dict[str, Any]
    experiment: str | None
    assignments: list[str]

    @classmethod
    def of(cls, experiment: str | None, assignments: list[str] | None) -> _Place:
        """Load and check the parameters; nothing is written yet."""
        from clearnets import config, experiments
        from clearnets.artifacts import UserError

        if not experiment:
            if assignments:
                raise UserError("--set changes results, so it needs a place: add --experiment NAME")
            return cls(config.load(), {}, None, [])
        values = experiments.resolve(experiment, assignments or [])
        return cls(config.parse(values, experiment), values, experiment, assignments or [])

    def family(self, name: str, known: tuple[str, ...]) -> str:
        """`name`, if it is one of `known` and in the experiment."""
        from clearnets.artifacts import UserError

        _choice("--aux", name, known)
        if name not in self.config.families:
            there = ", ".join(family for family in self.config.families if family in known)
            raise UserError(
                f"experiment {self.config.experiment!r} has no family {name!r}; "
                f"choose one of {there}, or add it to `families`"
            )
        return name

    def model(self, mlp: str) -> str:
        """`mlp`, if it is a feedforward and one of the experiment's models has it."""
        from clearnets.artifacts import UserError
        from clearnets.config import MLPS

        _choice("--mlp", mlp, MLPS)
        if mlp not in self.config.models:
            raise UserError(
                f"experiment {self.config.experiment!r} has no {mlp!r} model; "
                f"choose one of {', '.join(self.config.models)}, or change `models`"
            )
        return mlp

    def task(self, name: str) -> str:
        """`name`, if it is a task of the observatory that the experiment has."""
        from clearnets.artifacts import UserError
        from clearnets.config import TASKS

        if name not in TASKS:
            raise UserError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")
        if name not in self.config.generalize.tasks:
            raise UserError(
                f"experiment {self.config.experiment!r} has no task {name!r}; choose one of "
                f"{', '.join(self.config.generalize.tasks)}, or add it to `generalize.tasks`"
            )
        return name

    def run(
        self,
        stage: str,
        *,
        dry_run: bool,
        device: str = "auto",
        threads: int = 0,
        **selection: Any,
    ) -> None:
        """Run one stage module in this place, or show what it would do."""
        from importlib import import_module

        from clearnets import experiments, paths, processes, times
        from clearnets.runtime import Runtime

        module = import_module(f"clearnets.stages.{stage}")
        if dry_run:
            folder = experiments.place(self.experiment) if self.experiment else Path()
            name = "-".join(
                [stage, *(selection[key] for key in ("mlp", "family") if key in selection)]
            )
            _show(self.config, folder, module, paths.metrics(name), selection)
            return
        runtime = Runtime(device, threads)
        if self.experiment:
            with processes.main_first(runtime.torch_device):
                if processes.is_main():
                    experiments.enter(self.experiment, self.assignments, self.values)
                else:
                    os.chdir(experiments.place(self.experiment))
        # Nothing is learnt of the time where all is fresh, or where a part was asked for.
        whole = selection.get("layers") in (None, self.config.model.layers)
        worth = whole and processes.is_main() and _any_stale(module, self.config, selection)
        part = selection.get("mlp") or selection.get("family") or selection.get("task")
        with times.timed(f"{stage}@{part}" if part else stage, worth=worth):
            module.run(self.config, runtime=runtime, **selection)


def _any_stale(module: Any, config: Config, selection: dict[str, Any]) -> bool:
    return any(not unit.fresh() for unit in module.units(config, **selection))


def _choice(option: str, value: str, known: tuple[str, ...]) -> str:
    from clearnets.artifacts import UserError

    if value not in known:
        raise UserError(f"unknown {option} {value!r}; choose one of {', '.join(known)}")
    return value


def _show(
    config: Config, folder: Path, module: Any, metrics: Path, selection: dict[str, Any]
) -> None:
    """Print the parameters, and what a stage would read and write in `folder`."""
    from ruamel.yaml import YAML

    from clearnets import experiments
    from clearnets.config import STAGES_WITH_METRICS

    YAML().dump(config.model_dump(mode="json"), sys.stdout)
    begun = folder.is_dir()
    if begun:
        os.chdir(folder)
    else:
        # Relative paths are named from a worktree that is not there yet.
        config = experiments.seen_from_checkout(config, folder)
    made = module.units(config, **selection)
    reads = sorted({path for unit in made for path in unit.inputs.values()})
    print("\n# reads")
    stage = made[0].stage if made else ""
    part = selection.get("mlp") or selection.get("family") or selection.get("task")
    for path in experiments.local_sources(config, stage, part):
        print(os.path.normpath(folder / path) if begun else path)
    for path in reads:
        print(f"{folder / path}{'' if begun and path.exists() else '  (missing)'}")
    print("# writes")
    for unit in made:
        print(f"{folder / unit.out}{'  (up to date)' if begun and unit.fresh() else ''}")
    if stage in STAGES_WITH_METRICS:
        print(folder / metrics)
    if begun and hasattr(module, "estimate") and all(_there(unit) for unit in made):
        for line in module.estimate(config, **selection):
            print(f"# {line}")


def _there(unit: Any) -> bool:
    """Whether what a unit is made from is there, but for what a stage before it may still make."""
    before = ("data", "cache")
    return all(unit.inputs[name].exists() for name in before if name in unit.inputs)


@app.callback()
def one_process(context: typer.Context) -> None:
    """Refuse torchrun's processes where one does the work."""
    from clearnets import processes
    from clearnets.artifacts import UserError

    name = context.invoked_subcommand
    if processes.count() > 1 and name != "train":
        cure = "start it without torchrun"
        if name == "exp":
            cure += "; `clearnets exp NAME --processes N` trains on several"
        raise UserError(f"`clearnets {name}` runs on one process; {cure}")


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
    place = _Place.of(experiment, assign)
    place.run("data", dry_run=dry_run, device=device, threads=threads)


@app.command()
def train(
    mlp: Mlp,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
    processes: Processes = 1,
) -> None:
    """Train a transformer with dense or sparse feedforward layers.

    Example: [bold]clearnets train --mlp sparse[/bold]
    """
    from clearnets.processes import launch, launched

    place = _Place.of(experiment, assign)
    mlp = place.model(mlp)
    # A model that is taken over is not trained: that is work for one.
    if processes > 1 and place.config.model.kind == "gptneox" and not (dry_run or launched()):
        _enough_gpus(device, threads, processes)
        raise SystemExit(launch(processes, sys.argv[1:]))
    place.run("train", dry_run=dry_run, device=device, threads=threads, mlp=mlp)


def _enough_gpus(device: str, threads: int, processes: int) -> None:
    """Refuse more processes than there are GPUs, where GPUs are to be used."""
    from clearnets.artifacts import UserError
    from clearnets.runtime import Runtime

    if Runtime(device, threads).torch_device().type == "cuda":
        import torch

        gpus = torch.cuda.device_count()
        if gpus < processes:
            raise UserError(f"--processes {processes}: there are {gpus} GPUs here, one for each")


@app.command()
def match(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Pair the sparse and the dense model at equal validation loss.

    Example: [bold]clearnets match[/bold]
    """
    _Place.of(experiment, assign).run("match", dry_run=dry_run)


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
    from clearnets.config import CODER_FAMILIES

    place = _Place.of(experiment, assign)
    family = place.family(aux, CODER_FAMILIES)
    place.run("sparsify", dry_run=dry_run, device=device, threads=threads, family=family)


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
    place = _Place.of(experiment, assign)
    place.run("evaluate", dry_run=dry_run, device=device, threads=threads)


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
    from clearnets.config import FAMILIES

    place = _Place.of(experiment, assign)
    family = place.family(aux, FAMILIES)
    place.run("cache", dry_run=dry_run, device=device, threads=threads, family=family)


def _on_layers(
    stage: str,
    aux: str,
    layers: str | None,
    experiment: str | None,
    assign: list[str] | None,
    dry_run: bool,
) -> None:
    from clearnets.config import FAMILIES, parse_layers

    place = _Place.of(experiment, assign)
    family = place.family(aux, FAMILIES)
    chosen = parse_layers(layers, place.config)
    place.run(stage, dry_run=dry_run, family=family, layers=chosen)


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
def embed(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Embed windows of text, where silent windows are to be similar in meaning to active ones.

    Example: [bold]clearnets embed[/bold]
    """
    place = _Place.of(experiment, assign)
    place.run("embed", dry_run=dry_run, device=device, threads=threads)


@app.command()
def similarity(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score explanations by meaning: are they similar to the windows in which a latent is active?

    Example: [bold]clearnets similarity[/bold]
    """
    place = _Place.of(experiment, assign)
    place.run("similarity", dry_run=dry_run, device=device, threads=threads)


@app.command()
def overlap(
    aux: LatentAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Measure what it is worth to score explanations on windows that their explainer has seen.

    Example: [bold]clearnets overlap --aux native[/bold]
    """
    from clearnets.config import FAMILIES

    place = _Place.of(experiment, assign)
    place.run("overlap", dry_run=dry_run, family=place.family(aux, FAMILIES))


@app.command()
def concepts(
    aux: LatentAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Measure how well single latents recover the corpus's known concepts.

    Example: [bold]clearnets concepts --aux native[/bold]
    """
    from clearnets.config import FAMILIES

    place = _Place.of(experiment, assign)
    place.run("concepts", dry_run=dry_run, family=place.family(aux, FAMILIES))


@app.command()
def generalize(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="grokking, digits, grid, mnist, cifar10 or checkpoints."
        ),
    ],
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Observe training runs through their checkpoints: when does a network generalize?

    Example: [bold]clearnets generalize grokking[/bold]
    """
    place = _Place.of(experiment, assign)
    task = place.task(task)
    place.run("generalize", dry_run=dry_run, device=device, threads=threads, task=task)


@app.command()
def qualify(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    threads: Threads = 0,
) -> None:
    """Test the language model that judges: can it tell known concepts apart?

    Example: [bold]clearnets qualify[/bold]
    """
    _Place.of(experiment, assign).run("qualify", dry_run=dry_run, threads=threads)


@app.command()
def collate(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Gather all results into small tidy tables in paper/results/.

    Example: [bold]clearnets collate[/bold]
    """
    _Place.of(experiment, assign).run("collate", dry_run=dry_run)


@app.command()
def figures(
    experiment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Draw the tables in paper/results/NAME, from git."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is read and written; do nothing.")
    ] = False,
) -> None:
    """Draw the paper's figures from the tables in paper/results/, without training.

    Example: [bold]clearnets figures[/bold]
    """
    from clearnets import config, paths, times
    from clearnets import figures as module

    name = experiment or config.load().experiment
    # The pipeline's own go to paper/figures, where DVC tracks them.
    folder = paths.results(name) / paths.FIGURES.name if experiment else paths.FIGURES
    if dry_run:
        print(f"experiment: {name}\n\n# reads\n{paths.results(name)}\n# writes\n{folder}")
    else:
        with times.timed("figures", worth=not experiment):
            module.run(paths.results(name), folder)


@app.command()
def browse(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Write a page to look at latents: one HTML file, opened without server or network.

    Example: [bold]clearnets browse[/bold]
    """
    _Place.of(experiment, assign).run("browse", dry_run=dry_run)


@app.command()
def paper(
    experiment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the tables in paper/results/NAME, from git."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Tell whether the PDF is what the tables give.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is read and written; do nothing.")
    ] = False,
) -> None:
    """Compile the paper and its LaTeX tables from paper/results/ and the figures, in seconds.

    Example: [bold]clearnets paper[/bold]
    """
    from clearnets import config, times
    from clearnets import manuscript as module

    name = experiment or config.load().experiment
    place = module.place_of(name, tracked=experiment is None)
    if dry_run:
        print(f"experiment: {name}\n\n# reads\n{place.tables}\n{place.figures}\n{place.params}")
        print(f"# writes\n{place.out}\n{place.latex}")
    elif not check:
        with times.timed("paper", worth=not experiment):
            module.run(place)
    elif module.differs(place):
        print(f"{place.out} is not what the tables give; run `clearnets paper`")
        raise typer.Exit(1)


@app.command()
def claims(
    every: Annotated[
        bool, typer.Option("--all", help="Also name the claims that need training, and their cost.")
    ] = False,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the tables in paper/results/NAME.")
    ] = None,
) -> None:
    """Check the paper's claims on its tables, without training, in less than a minute.

    Example: [bold]clearnets claims[/bold]
    """
    from clearnets import artifacts, config, paths
    from clearnets import claims as module
    from clearnets.console import print_table

    folder = paths.results(experiment or config.load().experiment)
    artifacts.check(folder)
    marked = [pair for pair in module.marked(module.read()) if every or not pair[1].training]
    findings = module.check_all([claim for _, claim in marked], module.tables_in(folder))
    print_table(
        ("", "claim", "says", "", "found", "cost"),
        [
            (mark, f.claim.name, f.claim.says, f.state, f.found, f.claim.cost)
            for (mark, _), f in zip(marked, findings)
        ],
        styles=module.STYLES,
    )
    print(module.counted(findings))
    raise typer.Exit(any(finding.broken for finding in findings))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A folder of tables, NAME, or NAME@COMMIT.")],
    second: Annotated[str, typer.Argument(help="The same of the other run.")],
    relative: Annotated[
        float, typer.Option("--rel", min=0, help="Agree within this share of the greater number.")
    ] = 0.02,
    absolute: Annotated[
        float, typer.Option("--abs", min=0, help="Agree within this distance.")
    ] = 0.002,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Only results that have an interval.")
    ] = False,
    tables: Annotated[
        str | None, typer.Option(metavar="TABLES", help="Only these, e.g. means,contrasts.")
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, metavar="N", help="Print at most so many that do not agree.")
    ] = 20,
) -> None:
    """Tell which results of two runs agree within tolerance or by their intervals.

    Example: [bold]clearnets compare default default@HEAD~1 --intervals[/bold]
    """
    from clearnets import comparison as module
    from clearnets.console import print_table

    one, other = module.chosen(module.read(first), module.read(second), tables)
    tolerance = module.Tolerance(relative, absolute)
    results = list(module.compare(one, other, tolerance, intervals_only=intervals))
    print_table(module.HEADER, module.by_table(results))
    apart = [result for result in results if not result.agrees]
    for result in apart[:show]:
        print(module.told(result))
    if len(apart) > show:
        print(f"... and {len(apart) - show:,} more (--show N)")
    print(f"{len(results) - len(apart):,} of {len(results):,} results agree")
    # No results are no agreement.
    raise typer.Exit(bool(apart) or not results)


@app.command()
def compute(
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="The experiment; default: params.yaml.")
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Try a parameter; nothing is written."),
    ] = None,
) -> None:
    """Print what an experiment costs: parameters, FLOPs, and the coders' fair budget.

    Example: [bold]clearnets compute --set model.hidden_size=256[/bold]
    """
    from clearnets import budget, config, experiments, paths

    if experiment:
        values = experiments.resolve(experiment, assign or [])
    else:
        values = experiments.assigned(config.read_yaml(paths.PARAMS), assign or [])
    parsed = config.parse(values, experiment or str(paths.PARAMS))
    if experiment:
        # `resolve` names local sources as the worktree will see them.
        parsed = experiments.seen_from_checkout(parsed, experiments.place(experiment))
    for line in budget.report(parsed):
        print(line)


@app.command("import")
def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A Lightning (.ckpt), torch (.pt, .bin) or safetensors file, or a folder with one."
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
    """Convert a checkpoint of the original clearnets into a Hugging Face folder.

    Example: [bold]clearnets import last.ckpt models/dense --set num_attention_heads=16[/bold]
    """
    from clearnets import experiments
    from clearnets.models import original

    model: Any = original.run(checkpoint, out, experiments.parsed(assign or []))
    kind = getattr(model.config, "mlp", "dense")
    print(f"{out}: {model.config.model_type}, {kind}, {model.num_parameters():,} parameters")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    aux: LatentAux,
    layers: Layers = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The training seed.")] = 0,
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
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="The experiment; default: params.yaml.")
    ] = None,
) -> None:
    """Write a family's explanations and scores in the file layout of delphi's runs.

    Example: [bold]clearnets export --aux sae /tmp/sae[/bold]
    """
    from clearnets import experiments
    from clearnets import export as module
    from clearnets.config import FAMILIES, parse_layers

    if by is not None:
        _choice("--by", by, ("rules", "language"))
    place = _Place.of(experiment, None)
    family: Any = place.family(aux, FAMILIES)
    out = out.absolute()
    if experiment:
        _move_to(experiments.place(experiment), experiment)
    explanations, files = module.run(
        place.config,
        family=family,
        layers=parse_layers(layers, place.config),
        seed=seed,
        by=by,  # pyright: ignore[reportArgumentType]
        firing_counts=firing_counts,
        out=out,
    )
    print(f"{out}: {explanations:,} explanations, {files:,} files of scores")


def _move_to(folder: Path, experiment: str) -> None:
    from clearnets.artifacts import UserError

    if not folder.is_dir():
        raise UserError(f"{experiment} has not run here; run `clearnets exp {experiment}` first")
    os.chdir(folder)


@app.command("import-scores")
def import_scores(
    run: Annotated[Path, typer.Argument(help="The folder of a run of delphi.")],
    out: Annotated[Path, typer.Argument(help="The new folder of tables.")],
    aux: LatentAux,
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
    from clearnets.config import FAMILIES
    from clearnets.tables import theirs

    _choice("--aux", aux, FAMILIES)
    count = theirs.run(run, out, family=aux, judge=judge, settings=config.load().collate)
    print(f"{out}: tables of {count:,} latents")


@app.command()
def trace(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A result: figure, table, artifact.")],
    experiment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Follow the record of this experiment's run."),
    ] = None,
) -> None:
    """Show where a figure or table comes from: stages, hashes, parameters, commit.

    Example: [bold]clearnets trace paper/figures/scores.pdf[/bold]
    """
    from clearnets import paths, trail

    lock = paths.results(experiment) / trail.LOCK if experiment else trail.LOCK
    steps = trail.read_lock(lock)
    for line in trail.told(trail.trace(steps, path), path, trail.commit_of(lock)):
        print(line)


@app.command()
def verify() -> None:
    """Hash all results and tell what is missing, stale, or changed by hand.

    Example: [bold]clearnets verify[/bold]
    """
    from clearnets import config, paths, trail

    steps = trail.read_lock()
    params, stages = config.read_yaml(paths.PARAMS), config.read_yaml(trail.PIPELINE)["stages"]
    found = list(trail.faults(steps, params, stages, trail.look(steps)))
    for line in trail.judged(steps, found):
        print(line)
    raise typer.Exit(any(fault.state != trail.MISSING for fault in found))


@app.command()
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
    from clearnets import bundle as module

    size = module.run(out, without=tuple(dict.fromkeys(without or ())))
    print(f"{out}: {size / 1e6:,.1f} MB")


@app.command()
def show(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="For example transcoder.")],
    layer: Annotated[
        str, typer.Argument(metavar="LAYER", help="A number; `tokens` for token-unigram.")
    ],
    latent: Annotated[int, typer.Argument(metavar="LATENT", help="Its number in the layer.")],
    examples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Windows with its strongest activations.")
    ] = 5,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="The training seed; default: the first.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="The experiment; default: params.yaml.")
    ] = None,
) -> None:
    """Print one latent: explanation, scores, where it is active, what it promotes.

    Example: [bold]clearnets show transcoder 3 37[/bold]
    """
    from clearnets import experiments
    from clearnets import show as module

    place = _Place.of(experiment, None)
    if experiment:
        _move_to(experiments.place(experiment), experiment)
    module.run(module.look(place.config, family, layer, latent, seed=seed), examples)


@app.command()
def status(
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="The run of this experiment.")
    ] = None,
) -> None:
    """Tell which stages are fresh, stale or missing, and what `dvc repro` would take.

    Example: [bold]clearnets status[/bold]
    """
    from clearnets import config, experiments, paths, times, trail
    from clearnets import status as module

    if experiment:
        _move_to(experiments.place(experiment), experiment)
    steps = trail.read_lock()
    params, stages = config.read_yaml(paths.PARAMS), config.read_yaml(trail.PIPELINE)["stages"]
    hashes = module.Hashes()
    found = list(trail.faults(steps, params, stages, trail.look(steps, of_file=hashes)))
    hashes.keep()
    standing = module.standings(steps, found, times.recorded(), module.in_cache(steps))
    for line in module.told(standing):
        print(line)


@app.command()
def exp(
    name: Annotated[str | None, typer.Argument(help="The experiment; none lists them.")] = None,
    assign: Set = None,
    dry_run: DryRun = False,
    processes: Processes = 1,
) -> None:
    """Run a whole experiment, an overlay in experiments/, in its own place.

    Example: [bold]clearnets exp smoke[/bold]
    """
    from clearnets import experiments

    if name is None:
        experiments.show_all()
    else:
        experiments.run(name, assign or [], processes=processes, dry_run=dry_run)


# Exit code of a command that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


def _guarded(call: Callable[[], Any]) -> int:
    """Run `call`; a user's mistake or a full disk becomes one line and exit code 2."""
    from clearnets import processes
    from clearnets.artifacts import UserError

    code = 2
    try:
        return call() or 0
    except UserError as error:
        message = str(error)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Typer turns Ctrl-C into an exit.
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        message, code = "interrupted; run the same command again to go on", INTERRUPTED
    except Exception as error:
        if not _no_space(error):
            raise
        message = (
            "a file could not be written: the disk is full, or a quota or size limit is reached; "
            "free some space and run the same command to go on"
        )
    if code == 2:
        processes.let_main_speak()
    if code == 2 or processes.is_main():
        print(f"clearnets: {message}", file=sys.stderr)
    return code


def _no_space(error: Exception) -> bool:
    """Whether a full disk is behind `error`. Libraries that write in native code (safetensors,
    tokenizers, torch, numpy) say so in words only, or not at all."""
    import errno
    import re
    import shutil

    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in codes
    found = re.search(r"os error (\d+)", str(error))
    if found:
        return int(found[1]) in codes
    said = ("PytorchStreamWriter failed", "requested and", "items requested but")
    if any(words in str(error) for words in said):
        return True
    return shutil.disk_usage(".").free < 2**20


def main() -> None:
    """Entry point of the command `clearnets`."""
    from clearnets import processes

    processes.follow_launcher()
    sys.exit(_guarded(lambda: app(standalone_mode=True)))


if __name__ == "__main__":
    main()
