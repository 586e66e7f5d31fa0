"""Commands that make the paper from tables, and check what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clearnets.cli.options import DryRun, Results

if TYPE_CHECKING:
    import pandas as pd


def figures(
    experiment: Results = None,
    dry_run: DryRun = False,
) -> None:
    """Draw the paper's figures from the tables in paper/results/, without training.

    Example: [bold]clearnets figures[/bold]
    """
    from clearnets import config
    from clearnets.paper import figures as module
    from clearnets.pipeline import paths, times

    own = config.load().experiment
    name = experiment or own
    # The pipeline's own go to paper/figures, where DVC tracks them.
    folder = paths.FIGURES if name == own else paths.results(name) / paths.FIGURES.name
    if dry_run:
        print(f"experiment: {name}\n\n# reads\n{paths.results(name)}\n# writes\n{folder}")
    else:
        with times.timed("figures", worth=name == own):
            module.run(paths.results(name), folder)
        there = f" --experiment {name}" if experiment else ""
        print(f"made: {folder}\nnext: `clearnets paper{there}`")


def paper(
    experiment: Results = None,
    check: Annotated[
        bool, typer.Option("--check", help="Tell whether the PDF is what the tables give.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Compile the paper and its LaTeX tables from paper/results/ and the figures, in seconds.

    Example: [bold]clearnets paper[/bold]
    """
    from clearnets import config
    from clearnets.paper import manuscript as module
    from clearnets.pipeline import times

    own = config.load().experiment
    name = experiment or own
    place = module.place_of(name, tracked=name == own)
    if dry_run:
        print(f"experiment: {name}\n\n# reads\n{place.tables}\n{place.figures}\n{place.params}")
        print(f"# writes\n{place.out}\n{place.latex}")
    elif not check:
        with times.timed("paper", worth=name == own):
            module.run(place)
        print(f"made: {place.out}, {place.latex}")
    elif module.differs(place):
        print(f"{place.out} is not what the tables give; run `clearnets paper`")
        raise typer.Exit(1)
    else:
        print(f"up to date: {place.out}")


def claims(
    every: Annotated[
        bool, typer.Option("--all", help="Also name the claims that need training, and their cost.")
    ] = False,
    experiment: Results = None,
) -> None:
    """Check the paper's claims on its tables, without training, in less than a minute.

    On the tables of another experiment: whether it says the same, as far as it asks; or, by its own
    list paper/claims-NAME.yaml, whether it came out as it must.

    Example: [bold]clearnets claims[/bold]
    """
    from clearnets import config
    from clearnets.paper import addresses, manuscript
    from clearnets.paper import claims as module
    from clearnets.pipeline import artifacts, paths
    from clearnets.pipeline.console import print_table

    name = experiment or config.load().experiment
    source, folder = module.source(name), paths.results(name)
    tests = source != module.SOURCE
    of_it = tests or name == manuscript.SUBJECT
    artifacts.check(folder)
    marked = [
        (f"C{number}", claim)
        for number, claim in enumerate(module.read(source), 1)
        # What a command checks is the paper and what the pipeline made.
        if (every or not claim.training) and (of_it or claim.holds is not None)
    ]
    findings = module.check_all([claim for _, claim in marked], addresses.tables_in(folder))
    if tests:
        findings = [finding.as_test() for finding in findings]
    print_table(
        ("", "claim", "says", "", "found", "cost"),
        [
            (mark, f.claim.name, f.claim.says, f.state, f.found, f.claim.cost)
            for (mark, _), f in zip(marked, findings)
        ],
        styles=module.STYLES,
    )
    print(module.counted(findings))
    broken = any(f.broken if of_it else f.state == module.FAILS for f in findings)
    raise typer.Exit(broken)


def compare(
    first: Annotated[
        str | None,
        typer.Argument(
            help="A folder of tables, NAME, or NAME@COMMIT. Default: this experiment as committed.",
            show_default=False,
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Argument(
            help="The same of the other run. Default: the one here.", show_default=False
        ),
    ] = None,
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

    Without names it begins with the verdict on the run here: the claims, committed and here.

    Example: [bold]clearnets compare default default@HEAD~1 --intervals[/bold]
    """
    from clearnets import config
    from clearnets.cli import verdict
    from clearnets.paper import compare as module
    from clearnets.pipeline import environment

    own = config.load().experiment if config.PARAMS.exists() else None
    if first is None and own:
        verdict.show(own)
    first, second = first or f"{_needed(own)}@HEAD", second or _needed(own)
    results = module.compare(
        module.read(first),
        module.read(second),
        module.Tolerance(relative, absolute),
        intervals_only=intervals,
        tables=tables.split(",") if tables else (),
    )
    apart = _print_apart(results, show)
    made = [module.made_with(name, own) for name in (first, second)]
    if all(made):
        print(f"the second: {environment.format_differences(*made)}")
    # No results are no agreement.
    raise typer.Exit(apart > 0 or results.empty)


def _print_apart(results: pd.DataFrame, show: int) -> int:
    """Print the results of a comparison, `show` of those that do not agree; return how many."""
    from clearnets.paper import compare as module
    from clearnets.pipeline.console import print_table

    print_table(module.HEADER, module.count_by_table(results))
    apart = results.loc[~module.agrees(results)]
    for result in apart[:show].itertuples(index=False):
        print(module.format_difference(*result))
    if len(apart) > show:
        print(f"... and {len(apart) - show:,} more (--show N)")
    print(f"{len(results) - len(apart):,} of {len(results):,} results agree")
    return len(apart)


def _needed(own: str | None) -> str:
    """Return the experiment of this checkout.

    Raises:
        UserError: there is none.
    """
    from clearnets import UserError

    if own is None:
        raise UserError("params.yaml is missing; run in the project's folder, or name two runs")
    return own
