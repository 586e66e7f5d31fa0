"""Print which claims hold in the run here and which results are as committed; keep it as a file."""

from __future__ import annotations


def show(experiment: str, *, again: bool = True) -> None:
    """Print the verdict on the run here and keep it; nothing where git has no such results.

    Args:
        experiment: of the checkout.
        again: also where it was reached before, on the same tables and commit.
    """
    from clearnets.paper import claims
    from clearnets.paper import verdict as module
    from clearnets.pipeline.artifacts import write_text
    from clearnets.pipeline.console import print_table

    if not module.has_reference(experiment):
        return
    about = module.stamp(experiment)
    if not again and module.is_kept(about):
        print(f"verdict: {module.REPORT}")
        return
    found = module.reach(experiment)
    write_text(module.REPORT, "\n".join(module.format_report(found, about)) + "\n")
    print_table(module.CLAIMS, found.claims, styles=claims.STYLES)
    print_table(module.RESULTS, found.results)
    print(f"the run here: {found.made_with}")
    print(f"{found.summary}\nverdict: {module.REPORT}")
