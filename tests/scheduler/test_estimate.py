"""Times that are left, against networkx and small cases worked out by hand."""

from __future__ import annotations

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from clearnets.pipeline.scheduler.estimate import expected, seconds_left, ways_to_end


@st.composite
def graphs(draw):
    """A graph of stages, each behind those that it reads from, and what each takes."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 8)))]
    upstream = {
        name: draw(st.sets(st.sampled_from(names[:number]))) if number else set()
        for number, name in enumerate(names)
    }
    return upstream, {name: float(draw(st.integers(1, 9))) for name in names}


@given(graphs())
def test_the_longest_way_is_that_of_networkx(drawn):
    upstream, seconds = drawn
    graph = nx.DiGraph()
    graph.add_nodes_from(upstream)
    graph.add_edges_from((a, b) for b, before in upstream.items() for a in before)
    for name, way in ways_to_end(upstream, seconds).items():
        part = graph.subgraph({name, *nx.descendants(graph, name)})
        paths = nx.all_simple_paths(part, name, [n for n in part if not part.out_degree(n)])
        longest = max((sum(map(seconds.get, path)) for path in paths), default=seconds[name])
        assert way == max(longest, seconds[name])


@given(graphs())
def test_one_worker_takes_the_sum_and_many_the_longest_way(drawn):
    upstream, seconds = drawn
    ways = ways_to_end(upstream, seconds)
    assert seconds_left(upstream, seconds, {}, 1) == sum(seconds.values())
    assert seconds_left(upstream, seconds, {}, len(seconds)) == max(ways.values())
    two = seconds_left(upstream, seconds, {}, 2)
    assert max(*ways.values(), sum(seconds.values()) / 2) <= two <= sum(seconds.values())


def test_running_stages_count_for_what_is_left_of_them():
    upstream = {"a": set(), "b": {"a"}, "c": set()}
    seconds = {"a": 10.0, "b": 5.0, "c": 4.0}
    assert seconds_left(upstream, seconds, {"a": 4.0}, 2) == 11.0
    # Longer than expected: as good as done.
    assert seconds_left(upstream, seconds, {"a": 40.0, "c": 1.0}, 2) == 5.0


def test_a_stage_without_a_record_takes_as_long_as_its_like():
    recorded = {"cache@sae": 4.0, "cache@native": 8.0, "data": 1.0}
    found = expected(["cache@sae", "cache@neurons", "data", "other"], recorded)
    assert found == {"cache@sae": 4.0, "cache@neurons": 6.0, "data": 1.0, "other": 10.0}
