"""The app and the entry point."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from clearnets.cli import exchange, experiments, look, paper, repro, stages
from clearnets.cli.errors import guarded
from clearnets.pipeline.stage import table

app = typer.Typer(
    name="clearnets",
    help="Are networks that are sparse by construction more interpretable than the SAEs and "
    "transcoders fitted to dense ones? Each stage of the comparison is a command; `clearnets "
    "repro` runs them all. `clearnets COMMAND --help` gives an example of each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order of `--help`. A command has its function's name.
PANELS = {
    "Pipeline": [stages.command(stage) for stage in table().values() if not stage.own_command],
    "Paper": [paper.figures, paper.paper, paper.claims, paper.compare],
    "Look": [
        *(look.trace, look.verify, look.show, look.judge, look.circuit, look.generate),
        look.status,
    ],
    "Exchange": [
        *(exchange.import_, exchange.export, exchange.export_model, exchange.import_scores),
        exchange.bundle,
    ],
    "Experiments": [repro.repro, experiments.exp, experiments.compute],
}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"clearnets {version('clearnets')}")
        raise typer.Exit


@app.callback()
def one_process(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Refuse torchrun's processes where one does the work."""
    from clearnets import UserError
    from clearnets.pipeline import processes

    name = context.invoked_subcommand
    if processes.count() > 1 and name != "train":
        raise UserError(f"`clearnets {name}` runs on one process; start it without torchrun")


for panel, commands in PANELS.items():
    for command in commands:
        name = command.__name__.rstrip("_").replace("_", "-")
        # There a negative number is an argument, of which the command tells the range.
        settings = {"ignore_unknown_options": True} if command is look.show else None
        app.command(name, rich_help_panel=panel, context_settings=settings)(command)


def main() -> None:
    """Entry point of the command `clearnets`."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without Unicode shows question marks instead of an error.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(guarded(lambda: app(prog_name="clearnets", standalone_mode=False)))
