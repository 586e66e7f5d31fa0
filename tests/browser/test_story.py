"""A story and the latents that fire in it: against transformers' own generation and the cache."""

from __future__ import annotations

import re

import numpy as np
import pytest
import small_world as world
import tiny_pipeline as tiny
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from clearnets import UserError, cli
from clearnets.autointerp.records import EXPLANATIONS
from clearnets.browser import story
from clearnets.browser.story import Writing
from clearnets.data.tokens import open_tokens
from clearnets.latents.readers import open_model, open_reader
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl

GREEDY = Writing(tokens=6, temperature=0, draw=0)
PROMPT = "the fox said"


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def told(
    writing: Writing = GREEDY, prompt: str = PROMPT, family: str = "native", latents: int = 99
):
    return story.tell(
        world.config(), prompt, writing, family=family, layers=[1], latents=latents, seed=None
    )


def test_the_likeliest_tokens_are_those_that_transformers_takes():
    found, store = told(), open_tokens(paths.data())
    model = open_model("native", 0).model
    begun = torch.tensor([[store.bos, *found.tokens_S[: found.prompt]]])
    theirs = model.generate(
        begun,
        attention_mask=torch.ones_like(begun),
        do_sample=False,
        max_new_tokens=6,
        suppress_tokens=[store.pad, store.bos],
    )
    wrote = theirs[0, 1:].tolist()
    if store.eos in wrote:
        wrote = wrote[: wrote.index(store.eos)]
    assert found.tokens_S == wrote
    assert "".join(found.strings[token] for token in found.tokens_S).startswith(PROMPT)


def test_a_draw_is_the_same_story_each_time_and_another_draw_is_another():
    stories = [told(Writing(8, 1.0, draw)).tokens_S for draw in (1, 1, 2)]
    assert stories[0] == stories[1] != stories[2]


def test_a_story_ends_where_the_context_does():
    assert len(told(Writing(10**6, 5.0, 3)).tokens_S) < tiny.CTX
    with pytest.raises(UserError, match=f"write at most {tiny.CTX - 2}"):
        told(prompt="the fox said no to the cat " * 5)


@pytest.mark.parametrize("family", ["native", "transcoder", "neurons"])
def test_latents_are_those_that_the_reader_finds(family):
    """At a row of the cache's own split, where the cache has them, too."""
    store = open_tokens(paths.data())
    row = np.asarray(store.split("explain"))[3]
    length = row.tolist().index(store.eos)
    point = world.config().hookpoints(family)[1]
    reader = open_reader(family, 0, [1], k=tiny.K)
    acts_BSK, indices_BSK = reader(torch.tensor(row[None, :length].astype(np.int64)))[point]
    found = story.by_latent(acts_BSK[0, 1:].numpy(), indices_BSK[0, 1:].numpy())
    cache = load_layer(paths.cache(family, 0, "explain"), point)
    for latent in range(cache.num_latents):
        own_S = np.zeros(length - 1)
        for at in range(*cache.entries(latent).indices(len(cache.act))):
            if cache.row[at] == 3 and cache.position[at] < length:
                own_S[cache.position[at] - 1] = cache.act[at]
        np.testing.assert_allclose(found.get(latent, 0 * own_S), own_S, rtol=1e-3)


def test_explained_latents_come_first_and_the_most_active_of_them():
    found = told()
    known = {
        one["latent"]: one["explanation"]
        for one in read_jsonl(paths.explain("native", 0, "layers.1.mlp") / EXPLANATIONS)
        if one["explanation"]
    }
    ranks = [(one.explanation is None, -one.act_S.max()) for one in found.fired]
    assert ranks == sorted(ranks)
    assert {one.latent: one.explanation for one in found.fired if one.explanation} == {
        one.latent: known[one.latent] for one in found.fired if one.latent in known
    }
    assert told(latents=2).fired[1].latent == found.fired[1].latent
    assert len(told(latents=0).fired) == 0


def test_what_is_printed_is_the_story_with_marks():
    found = told(latents=2)
    plain = [line.plain for line in story.lines(found, shades=False)]
    assert plain[0] == "sparse model · latents: native"
    assert plain[1].startswith(PROMPT)
    assert plain[3] == "layers.1.mlp"
    marks = [line for line in plain if "<<" in line]
    assert len(marks) == 2
    shaded = [line.plain for line in story.lines(found, shades=True)]
    assert shaded == [re.sub("<<|>>", "", line) for line in plain]


def test_the_command(tmp_path):
    with pytest.raises(UserError, match="token-unigram reads no model"):
        told(family="token-unigram")
    YAML().dump(world.config().model_dump(mode="json"), tmp_path / "params.yaml")
    (tmp_path / "artifacts").symlink_to(paths.ARTIFACTS.absolute())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        words = ["generate", PROMPT, "--tokens", "6", "--temperature", "0", "--layers", "1"]
        done = CliRunner().invoke(cli.app, words)
    expected = [line.plain for line in story.lines(told(latents=2), shades=False)]
    assert done.output.splitlines() == expected
