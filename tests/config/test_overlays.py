"""The overlays in experiments/: they resolve, and their models have the sizes that they claim."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
import torch

from clearnets import config
from clearnets.models import budget
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline import experiments

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
# By hand: V vocabulary, d width, n layers, L latents; embeddings 2 V d, final norm 2 d, and per
# layer attention 4 (d d + d), norms 4 d, and the feedforward: dense 8 d d + 5 d,
# sparse 2 L d + L + d, low-rank 2 (d + L) d / 8 + L + d.
PARAMETERS = {
    ("tinystories-8m", "dense"): 11_463_168,
    ("tinystories-8m", "sparse"): 40_880_640,
    ("tinystories-8m", "sparse_topk"): 40_880_640,
    ("tinystories-8m-low-rank", "dense"): 11_463_168,
    ("tinystories-8m-low-rank", "sparse_low_rank"): 11_651_584,
    ("simplestories-8m", "dense"): 11_463_168,
    ("simplestories-8m", "sparse"): 40_880_640,
    ("simplestories-8m", "sparse_topk"): 40_880_640,
    ("fineweb-28m", "dense"): 43_786_752,
    ("fineweb-28m", "sparse"): 175_993_344,
    ("fineweb-28m", "sparse_topk"): 175_993_344,
    ("grid-feedforwards", "dense_wide"): 1_389_184,
    ("reduced", "sparse"): 1_389_184,
}


@pytest.fixture(autouse=True)
def sources_may_be_absent(monkeypatch):
    """A base that `clearnets import` makes is not in the repository."""
    monkeypatch.setattr(experiments, "_sources", lambda _: iter(()))


def resolved(name: str) -> config.Config:
    return config.parse(experiments.resolve(name, []), name)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_of_every_overlay_has_the_parameters_of_the_closed_form(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = resolved(name)
    assert settings.experiment == name
    for mlp in settings.models if settings.model.kind == "gptneox" else ():
        with torch.device("meta"):
            model = build_model(
                settings.model,
                mlp=mlp,
                vocab_size=settings.data.vocab_size,
                ctx_len=settings.data.ctx_len,
                pad=0,
                bos=1,
                eos=2,
                seed=0,
            )
        count = sum(p.numel() for p in model.parameters())
        assert count == budget.parameters(budget.architecture(settings, mlp))
        assert count == PARAMETERS.get((name, mlp), count)
        assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "smoke"])
def test_the_rarest_latent_that_is_explained_can_be_scored_by_meaning(name, monkeypatch):
    """It is active in `explain.min_windows` of all windows; so are enough of the drawn ones."""
    monkeypatch.chdir(ROOT)
    settings = resolved(name)
    there = settings.data.tokens.score / settings.explain.window
    share = min(1.0, settings.similarity.windows / there)
    assert share * settings.explain.min_windows >= settings.similarity.min_windows


@pytest.mark.parametrize("name", ["tinystories-8m", "simplestories-8m", "fineweb-28m"])
def test_the_published_settings(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = resolved(name)
    assert {(n, m) for n, m in PARAMETERS if n == name} == {(name, m) for m in settings.models}
    assert (settings.data.ctx_len, settings.train.batch_size, settings.model.k) == (512, 128, 32)
    assert (settings.train.learning_rate, settings.train.betas) == (1e-3, (0.9, 0.95))
    assert settings.model.num_latents == 32 * settings.model.hidden_size
    assert settings.model.zero_unembedding
    assert settings.train.precision == "bfloat16"
    tokens = settings.data.tokens
    assert tokens.explain + tokens.score == 10_000_000
    if name == "fineweb-28m":
        whole = PARAMETERS[name, "dense"]
        ends = 2 * settings.data.vocab_size * settings.model.hidden_size
        assert round((whole - ends) / 1e6) == 28
    else:
        assert settings.model.num_latents == 8192
        assert tokens.valid / tokens.train == 0.005
    every = {"native", "transcoder", "sae", "skip-transcoder", "neurons"}
    assert every <= set(settings.families)


def test_overlays_that_have_run_stand_apart_from_those_that_have_not(committed):
    """One has run here where its tables and the commit of its run are in git."""
    page = (ROOT / "experiments/README.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", page, flags=re.M)
    listed = {
        title: {
            other
            for row in re.findall(r"^\| (.*?) \|", part, re.M)
            for name in re.findall(r"`([\w*-]+)`", row)
            for other in (fnmatch.filter(NAMES, name) if "*" in name else [name])
        }
        for title in ("Those that have run", "Those that have never run")
        for part in parts
        if part.startswith(f"{title}\n")
    }
    ran, not_yet = listed["Those that have run"], listed["Those that have never run"]
    assert ran.isdisjoint(not_yet)
    assert ran | not_yet == set(NAMES)
    results = committed / "paper/results"
    there = {folder.name for folder in results.iterdir() if (folder / "commit.txt").exists()}
    assert ran == there | {"smoke"}
