"""The scorer by embeddings, against scikit-learn, plain transformers and delphi's."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from transformers import AutoModel, AutoTokenizer

from clearnets import UserError
from clearnets import config as cfg
from clearnets.autointerp.embedding_scorer import Verdict, judge_all, mean_curves, similarity
from clearnets.autointerp.encoder import Encoder, identity, locate
from clearnets.autointerp.ranking import area, areas, curves
from clearnets.config import Embed
from clearnets.latents.window_embeddings import nearest

ROOT = Path(__file__).parents[2]
SETTINGS = cfg.load(ROOT / "params.yaml").embed
CPU = torch.device("cpu")
FOXES = [
    "The fox ran over the hill.",
    "A red fox slept in its den.",
    "Then the young fox saw a hen and jumped.",
    "Was it a fox? asked Mia.",
]
OTHERS = [
    "Tom baked a cake with sugar.",
    "The boat sailed down the river to the sea.",
    "It rained all day, and the children stayed at home.",
    "She put on a hat and a coat.",
    "Numbers are written with digits.",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(SETTINGS, CPU)


def vectors(rng: np.random.Generator, *shape: int) -> np.ndarray:
    found = rng.normal(size=shape)
    return (found / np.linalg.norm(found, axis=-1, keepdims=True)).astype(np.float16)


def test_auroc_is_scikit_learns_for_every_pair():
    rng = np.random.default_rng(0)
    # Few different values: most are ties.
    similarity_EN = rng.integers(0, 6, (5, 40)) / 6
    active_TN = rng.random((4, 40)) < [[0.05], [0.3], [0.5], [0.9]]
    found_TE = areas(similarity_EN, active_TN)
    for row_E, active_N in zip(found_TE, active_TN):
        for value, similarity_N in zip(row_E, similarity_EN):
            assert value == pytest.approx(roc_auc_score(active_N, similarity_N))
            assert area(similarity_N, active_N) == round(value, 6)
    assert area(np.ones(3), np.ones(3, bool)) is None


@pytest.mark.parametrize("ties", [True, False])
def test_curves_are_scikit_learns(ties):
    rng = np.random.default_rng(4)
    value_N = rng.integers(0, 6, 200) / 6 if ties else rng.random(200)
    positive_TN = rng.random((4, 200)) < [[0.03], [0.3], [0.5], [0.9]]
    share_G = np.linspace(0, 1, 2001)
    for curve_G, positive_N in zip(curves(value_N, positive_TN, share_G), positive_TN):
        false, true, _ = roc_curve(positive_N, value_N, drop_intermediate=False)
        # A step is met a little behind it.
        met = np.interp(share_G[:-1] + 1e-9, false, true)
        assert curve_G[:-1] == pytest.approx(met, abs=1e-6)
        assert curve_G[-1] == 1
        assert np.trapezoid(curve_G, share_G) == pytest.approx(
            roc_auc_score(positive_N, value_N), abs=0.002
        )


def test_the_area_under_the_mean_curves_is_the_mean_auroc():
    rng = np.random.default_rng(5)
    explanation_TD, window_ND = vectors(rng, 6, 8), vectors(rng, 300, 8)
    active_TN = similarity(explanation_TD, window_ND) + rng.normal(0, 0.3, (6, 300)) > 0.2
    share_G = np.linspace(0, 1, 1001)
    verdicts = judge_all(explanation_TD, window_ND, active_TN)
    own_G, shuffled_G = mean_curves(explanation_TD, window_ND, active_TN, share_G)
    for curve_G, key in ((own_G, "auroc"), (shuffled_G, "shuffled")):
        mean = np.mean([getattr(verdict, key) for verdict in verdicts])
        assert np.trapezoid(curve_G, share_G) == pytest.approx(mean, abs=0.002)
    alone, none = mean_curves(explanation_TD[:1], window_ND, active_TN[:1], share_G)
    assert none is None
    assert alone[-1] == 1


def test_no_order_of_summation_decides_a_tie():
    rng = np.random.default_rng(1)
    a, b = vectors(rng, 30, 384), vectors(rng, 50, 384)
    order = rng.permutation(384)
    np.testing.assert_array_equal(similarity(a, b), similarity(a[:, order], b[:, order]))
    np.testing.assert_allclose(similarity(a, b), a.astype(np.float32) @ b.T, atol=1e-5)


def test_everyone_is_judged_by_everyone_elses_explanation():
    rng = np.random.default_rng(2)
    explanation_TD, window_ND = vectors(rng, 4, 8), vectors(rng, 60, 8)
    active_TN = rng.random((4, 60)) < 0.3
    aurocs = [
        [roc_auc_score(active_N, similarity(e[None], window_ND)[0]) for e in explanation_TD]
        for active_N in active_TN
    ]
    for i, verdict in enumerate(judge_all(explanation_TD, window_ND, active_TN)):
        others = [j for j in range(4) if j != i]
        assert verdict.auroc == pytest.approx(aurocs[i][i])
        assert verdict.shuffled == pytest.approx(np.mean([aurocs[i][j] for j in others]))
        assert verdict.elsewhere == pytest.approx(np.mean([aurocs[j][i] for j in others]))
    (alone,) = judge_all(explanation_TD[:1], window_ND, active_TN[:1])
    assert alone == Verdict(pytest.approx(aurocs[0][0]), None, None)
    assert judge_all(explanation_TD[:0], window_ND, active_TN[:0]) == []


def test_vectors_are_those_of_transformers_with_mean_pooling(encoder):
    texts = [*FOXES, *OTHERS, "", "x" * 50]
    folder = locate(SETTINGS.model)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    found = encoder.encode(texts)
    assert found.dtype == np.float16
    for text, vector in zip(texts, found):
        read = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden_SD = model(**read).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden_SD.mean(dim=0), dim=0)
        np.testing.assert_allclose(vector, expected, atol=2e-4)


def test_a_text_that_means_the_same_is_the_more_similar(encoder):
    explanation = encoder.encode(["The text is about a fox."])
    windows = encoder.encode([*OTHERS, *FOXES])
    active = np.arange(len(windows)) >= len(OTHERS)
    (verdict,) = judge_all(explanation, windows, active[None])
    assert verdict.auroc == 1


def test_no_bit_depends_on_the_number_of_threads(encoder):
    """Another process, with other numbers of threads, gives the same float32."""
    texts = [f"{one} {other}" for one in OTHERS for other in FOXES] * 4
    settings = SETTINGS.model_dump(mode="json")
    code = f"""
import torch
from clearnets.autointerp.encoder import Encoder
from clearnets.config import Embed
torch.set_num_threads(3)
settings = Embed.model_validate({settings!r}, strict=False)
encoder = Encoder(settings, torch.device("cpu"))
vectors = encoder.exact({texts!r})
assert torch.get_num_threads() == 3
print(__import__("hashlib").sha256(vectors.tobytes()).hexdigest())
"""
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        own = hashlib.sha256(encoder.exact(texts).tobytes()).hexdigest()
    finally:
        torch.set_num_threads(before)
    assert other.stdout.strip() == own


def settings(**changes) -> Embed:
    return SETTINGS.model_copy(update=changes)


def test_models_that_are_missing_or_others_are_one_line(tmp_path):
    for model, cure in (
        ("package:no_such_package", "run `make env`"),
        ("package:numpy", "install the package anew"),
        (str(tmp_path / "nowhere"), "correct the parameter embed.model"),
    ):
        with pytest.raises(UserError, match=cure):
            Encoder(settings(model=model), CPU)
    with pytest.raises(UserError, match=f"its SHA-256 is {SETTINGS.sha256[:9]}"):
        Encoder(settings(sha256="0" * 64), CPU)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="does not load as a model of sentences") as error:
        Encoder(settings(model=str(tmp_path), sha256=identity(tmp_path)), CPU)
    assert "\n" not in str(error.value)


def damaged(folder: Path, name: str, content: str) -> Path:
    """The default's model with another file of this name."""
    shutil.copytree(locate(SETTINGS.model), folder, copy_function=os.symlink)
    (folder / name).unlink()
    (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),  # tokenizers raises a bare Exception.
        ("config.json", '{"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2}'),
        ("modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "no.such.Module"}]'),
        ("1_Pooling/config.json", "[]"),
    ],
)
def test_every_file_is_hashed_and_may_be_wrong(tmp_path, name, content):
    folder = damaged(tmp_path / "model", name, content)
    with pytest.raises(UserError, match="holds another model"):
        Encoder(settings(model=str(folder)), CPU)
    with pytest.raises(UserError, match="does not load as a model of sentences") as error:
        Encoder(settings(model=str(folder), sha256=identity(folder)), CPU)
    assert "\n" not in str(error.value)


def test_the_identity_is_what_sha256sum_says():
    folder = locate(SETTINGS.model)
    names = (
        *("1_Pooling/config.json", "config.json", "config_sentence_transformers.json"),
        *("data_config.json", "model.safetensors", "modules.json", "sentence_bert_config.json"),
        *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    )
    command = ["sha256sum", *names]
    said = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    assert hashlib.sha256(said.stdout).hexdigest() == SETTINGS.sha256


needs_delphi = pytest.mark.skipif(find_spec("delphi") is None, reason="the extra `delphi`")
INSTRUCTION = "Instruct: Retrieve sentences that could be related to the explanation.\nQuery:"


def record(bridge, explanation: str):
    """A record of delphi's: foxes are active, the first of them in its strongest quantile."""
    common = {"tokens": torch.zeros(1, dtype=torch.long), "activations": torch.ones(1)}
    active = [
        bridge.ActivatingExample(**common, str_tokens=[text], quantile=place)
        for place, text in enumerate(FOXES)
    ]
    silent = [bridge.NonActivatingExample(**common, str_tokens=[text]) for text in OTHERS]
    found = bridge.LatentRecord(bridge.Latent("layers.0.mlp", 0), test=active, not_active=silent)
    found.explanation = explanation
    return found


def delphis(bridge, encoder, explanation: str) -> list:
    from delphi.scorers import EmbeddingScorer

    return asyncio.run(EmbeddingScorer(encoder._model)(record(bridge, explanation))).score


@needs_delphi
@pytest.mark.parametrize("explanation", ["animals of the forest", "cooking"])
def test_similarities_are_those_of_delphis_scorer(encoder, explanation):
    from clearnets.autointerp.llm import delphi_adapter as bridge

    theirs = {one.text: one.similarity for one in delphis(bridge, encoder, explanation)}
    texts = [*FOXES, *OTHERS]
    vector = encoder.encode([INSTRUCTION + explanation])
    (ours,) = similarity(vector, encoder.encode(texts))
    np.testing.assert_allclose(ours, [theirs[text] for text in texts], atol=5e-4)
    active = np.arange(len(texts)) < len(FOXES)
    (verdict,) = judge_all(vector, encoder.encode(texts), active[None])
    assert verdict.auroc == pytest.approx(roc_auc_score(active, [theirs[t] for t in texts]))


@needs_delphi
def test_delphis_similar_windows_are_similar_to_one_active_window_only(monkeypatch):
    """Each search asks for as many windows as are wanted in all, so the first takes them all. Ours
    are dealt out in turn."""
    from clearnets.autointerp.llm import delphi_adapter as bridge  # isort: skip
    from delphi.latents import constructors

    # Token 0 stands for one meaning, token 1 for another; the last window of each is active.
    tokens = torch.tensor([[0]] * 6 + [[1]] * 6)
    vector = {"0": [1.0, 0.0], "1": [0.0, 1.0]}
    model = SimpleNamespace(
        encode=lambda texts, **_: np.array([vector[text] for text in texts], dtype=np.float32)
    )
    monkeypatch.setattr(constructors, "get_model", lambda name: model)
    tokenizer = SimpleNamespace(batch_decode=lambda ids: [str(int(i)) for i in ids])
    active = [
        bridge.ActivatingExample(tokens=tokens[place], activations=torch.ones(1))
        for place in (5, 11)
    ]
    silent = torch.tensor([0, 1, 2, 3, 4, 6, 7, 8, 9, 10])
    theirs = constructors.faiss_non_activation_windows(
        silent, SimpleNamespace(examples=active), tokens, 1, tokenizer, 4, cache_enabled=False
    )
    assert {int(one.tokens[0]) for one in theirs} == {0}
    vector_ND = np.array([vector[str(int(token))] for token in tokens[:, 0]])
    ours = nearest(vector_ND, np.array([5, 11]), silent.numpy(), 4)
    assert sorted(tokens[ours, 0].tolist()) == [0, 0, 1, 1]
