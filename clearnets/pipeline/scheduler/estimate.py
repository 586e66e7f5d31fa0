"""How long stages will take, from recorded times: pure functions over names of stages."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Set

# For a stage that was never timed and has no like that was.
_UNKNOWN_SECONDS = 10.0


def expected(names: Iterable[str], recorded: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by stage: what is recorded, or the mean of what is for its other items."""
    by_stage: dict[str, list[float]] = {}
    for name, seconds in recorded.items():
        by_stage.setdefault(name.partition("@")[0], []).append(seconds)
    found = {}
    for name in names:
        like = by_stage.get(name.partition("@")[0])
        mean = sum(like) / len(like) if like else _UNKNOWN_SECONDS
        found[name] = recorded.get(name, mean)
    return found


def ways_to_end(upstream: Mapping[str, Set[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return by stage the seconds of the longest way from its start to the end of the pipeline.

    Args:
        upstream: by stage, those that it reads from; every stage comes after them.

    >>> ways_to_end({"a": set(), "b": {"a"}, "c": {"a"}}, {"a": 1, "b": 5, "c": 2})
    {'a': 6, 'b': 5, 'c': 2}
    """
    ways = dict(seconds)
    for name in reversed(list(upstream)):
        for before in upstream[name]:
            ways[before] = max(ways[before], seconds[before] + ways[name])
    return {name: ways[name] for name in upstream}


def seconds_left(
    upstream: Mapping[str, Set[str]],
    seconds: Mapping[str, float],
    running: Mapping[str, float],
    slots: int,
) -> float:
    """Return how long the rest takes if a free worker always takes the longest way to the end.

    Args:
        upstream: by stage that is not done, those that it waits for and that are not done.
        seconds: by stage, what it takes.
        running: by running stage, the seconds for which it has run.
        slots: stages that run at a time.
    """
    ways = ways_to_end(upstream, seconds)
    waits = {name: set(before) for name, before in upstream.items() if name not in running}
    ends = [(max(0.0, seconds[name] - since), name) for name, since in running.items()]
    heapq.heapify(ends)
    now = 0.0
    while ends or waits:
        ready = sorted((n for n, before in waits.items() if not before), key=lambda n: -ways[n])
        for name in ready[: max(0, max(slots, 1) - len(ends))]:
            del waits[name]
            heapq.heappush(ends, (now + seconds[name], name))
        now, done = heapq.heappop(ends)
        for before in waits.values():
            before.discard(done)
    return now
