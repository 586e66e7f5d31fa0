"""Evaluation against naive loops, hooks and scikit-learn, in double precision."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from tiny_pair import BOS, CTX, EOS, PAD, VOCAB, build_models, packed_rows, padded_rows, tiny_config

from clearnets.coders import evaluation, feedforward, library
from clearnets.coders.batches import make_batch
from clearnets.data.tokens import TokenStore
from clearnets.families import FAMILIES

STORE = TokenStore(Path(), VOCAB, CTX, PAD, BOS, EOS, ())
VALID, FITTED = padded_rows(11, 1), packed_rows(30, 2)
CHOSEN, OTHERS = VALID[::3], np.delete(VALID, np.s_[::3], axis=0)
CODERS = ("sae", "transcoder", "skip-transcoder")


def batches(rows: np.ndarray, size: int):
    return [make_batch(STORE, rows[i : i + size], "cpu") for i in range(0, len(rows), size)]


@pytest.fixture(scope="module")
def models():
    return {name: model.double() for name, model in build_models(tiny_config()).items()}


@pytest.fixture(scope="module")
def coders():
    """Coders at a generic point, every third latent dead, some activations zero."""
    generator = torch.Generator().manual_seed(3)
    made = {}
    for family in CODERS:
        made[family] = []
        for layer in range(2):
            name = f"layers.{layer}.mlp"
            sizes = {"d_in": 16, "num_latents": 64, "k": 4}
            coder = library.new_coder(name, **FAMILIES[family].coder_kind, **sizes, seed=0).double()
            with torch.no_grad():
                for parameter in coder.parameters():
                    noise = torch.randn(parameter.shape, generator=generator).double()
                    parameter += 0.1 * noise
                coder.encoder.bias -= 0.8
                coder.encoder.bias[::3] -= 100
            made[family].append(coder)
    return made


def everything(model, coders, size: int):
    """All numbers of the dense model at one batch size."""
    found = evaluation.survey(model, batches(VALID, size))
    ablation = evaluation.ablate(model, batches(CHOSEN, size), found.means)
    baselines = evaluation.fit_baselines(
        model, batches(FITTED, size), k=4, rows_RS=FITTED, vocab_size=VOCAB
    )
    rows = evaluation.evaluate_coders(
        model,
        coders,
        baselines,
        found.means,
        ablation,
        intervened=batches(CHOSEN, size),
        others=batches(OTHERS, size),
    )
    spliced = evaluation.splice_all(model, coders, found.means, batches(CHOSEN, size))
    return found, ablation, rows, spliced


@pytest.fixture(scope="module")
def evaluated(models, coders):
    return everything(models["dense"], coders, 4)


def flat(value) -> list[float]:
    """All numbers of nested rows."""
    if isinstance(value, dict):
        return [x for part in value.values() for x in flat(part)]
    if isinstance(value, list):
        return [x for part in value for x in flat(part)]
    return [value] if isinstance(value, int | float) else []


def test_no_number_depends_on_the_batches(models, coders):
    results = []
    for size in (1, 7):
        found, *tables = everything(models["dense"], coders, size)
        results.append([found.nll.value, *torch.cat(found.means).tolist(), *flat(tables)])
    assert len(results[0]) > 100
    np.testing.assert_allclose(*results, rtol=1e-10, atol=1e-10)


def naive_loss(model, rows, hooks=()) -> float:
    """Row by row and token by token: nats per predicted token; eos counts, bos and pad do not."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    losses = []
    for row in rows.astype(np.int64):
        logits = model(torch.from_numpy(row)[None], use_cache=False).logits[0]
        for i in range(CTX - 1):
            if row[i + 1] not in (PAD, BOS):
                losses.append(-float(logits[i].log_softmax(-1)[row[i + 1]]))
    for handle in handles:
        handle.remove()
    return math.fsum(losses) / len(losses)


def text_positions(tokens) -> torch.Tensor:
    """The mask by its words: not bos, eos, pad, nor first in the row."""
    mask = torch.ones(tokens.shape, dtype=torch.bool)
    for special in (PAD, BOS, EOS):
        mask &= torch.as_tensor(tokens.astype(np.int64)) != special
    mask[:, 0] = False
    return mask


def seen(model, rows, layer: int):
    """Input and output of one feedforward at text positions, all rows in one go."""
    kept = {}
    mlp = model.gpt_neox.layers[layer].mlp
    handle = mlp.register_forward_hook(lambda _, args, out: kept.update(x=args[0], y=out))
    model(torch.from_numpy(rows.astype(np.int64)), use_cache=False)
    handle.remove()
    mask = text_positions(rows)
    return kept["x"][mask].numpy(), kept["y"][mask].numpy()


def substitute(make):
    """A hook that writes `make(x, y)` at text positions; for one row at a time."""
    row = {}

    def hook(_, args, out):
        mask = text_positions(row["tokens"][None])
        changed = out.clone()
        changed[mask] = make(args[0], out)[mask]
        return changed

    return hook, row


def naive_intervened(model, rows, replacements) -> float:
    """Loss with feedforwards replaced through plain forward hooks, in a loop over rows."""
    total, count = 0.0, 0
    for tokens in rows:
        hooks = []
        for layer, make in replacements.items():
            hook, row = substitute(make)
            row["tokens"] = tokens
            hooks.append((model.gpt_neox.layers[layer].mlp, hook))
        predicted = int(((tokens != PAD) & (tokens != BOS))[1:].sum())
        total += naive_loss(model, tokens[None], hooks) * predicted
        count += predicted
    return total / count


def test_held_out_loss_and_ablation_against_a_loop(models):
    for model in models.values():
        found = evaluation.survey(model, batches(VALID, 4))
        assert found.nll.value == pytest.approx(naive_loss(model, VALID), rel=1e-12)
        rows = evaluation.ablate(model, batches(CHOSEN, 4), found.means)
        clean = naive_loss(model, CHOSEN)
        for layer, row in enumerate(rows):
            _, y_ND = seen(model, VALID, layer)
            mean_D = torch.from_numpy(y_ND.mean(0))
            np.testing.assert_allclose(found.means[layer], mean_D, atol=1e-12)
            loss = naive_intervened(model, CHOSEN, {layer: lambda x, y, m=mean_D: m.expand_as(y)})
            assert row["loss_clean"] == pytest.approx(clean, rel=1e-12)
            assert row["loss_ablate"] == pytest.approx(loss, rel=1e-11)
            assert row["cost"] == pytest.approx(loss - clean, rel=1e-8)
            assert abs(row["cost"]) > 1e-4


def row_of(rows, family, layer):
    (row,) = [r for r in rows if r["family"] == family and r["layer"] == layer]
    return row


@pytest.mark.parametrize("family", CODERS)
@pytest.mark.parametrize("layer", [0, 1])
def test_coders_against_scikit_learn(models, coders, evaluated, family, layer):
    model, coder = models["dense"], coders[family][layer]
    row = row_of(evaluated[2], family, layer)
    x_ND, y_ND = seen(model, VALID, layer)
    read_ND = torch.from_numpy(x_ND if coder.cfg.transcode else y_ND)
    with torch.no_grad():
        made = coder(read_ND, torch.from_numpy(y_ND))
    r2 = r2_score(y_ND, made.sae_out.numpy(), multioutput="variance_weighted")
    assert row["fvu"] == pytest.approx(1 - r2, rel=1e-10)
    on = made.latent_acts > 0
    assert (~on).sum() > 0, "a zero among the selected is part of the test"
    assert row["l0"] == pytest.approx(float(on.double().sum(1).mean()))
    used = set(made.latent_indices[on].tolist())
    assert row["dead"] == pytest.approx(1 - len(used) / 64)
    assert row["dead"] >= 22 / 64

    def splice(x, y):
        flat_x = (x if coder.cfg.transcode else y).flatten(0, 1)
        return coder(flat_x).sae_out.view_as(y)

    with torch.no_grad():
        loss = naive_intervened(model, CHOSEN, {layer: splice})
    assert row["loss_splice"] == pytest.approx(loss, rel=1e-11)
    ablated = evaluated[1][layer]["loss_ablate"]
    recovered = 1 - (loss - row["loss_clean"]) / (ablated - row["loss_clean"])
    assert row["loss_recovered"] == pytest.approx(recovered, rel=1e-6)


@pytest.mark.parametrize("layer", [0, 1])
def test_baselines_against_scikit_learn(models, evaluated, layer):
    model = models["dense"]
    x_fit, y_fit = seen(model, FITTED, layer)
    x_ND, y_ND = seen(model, VALID, layer)
    row = row_of(evaluated[2], "transcoder", layer)

    def fvu(prediction):
        return 1 - r2_score(y_ND, prediction, multioutput="variance_weighted")

    pca = PCA(4).fit(y_fit)
    assert row["fvu_pca"] == pytest.approx(fvu(pca.inverse_transform(pca.transform(y_ND))))
    linear = LinearRegression().fit(x_fit, y_fit)
    assert row["fvu_linear"] == pytest.approx(fvu(linear.predict(x_ND)), rel=1e-6)
    assert row_of(evaluated[2], "sae", layer)["fvu_linear"] is None

    fitted = FITTED[text_positions(FITTED).numpy()]
    tokens = VALID[text_positions(VALID).numpy()]
    means = {t: y_fit[fitted == t].mean(0) for t in set(fitted.tolist())}
    prediction = np.stack([means.get(t, y_fit.mean(0)) for t in tokens.tolist()])
    assert row["fvu_token_mean"] == pytest.approx(fvu(prediction))


def test_an_unseen_token_is_predicted_by_the_mean():
    from clearnets.coders.baselines import Sums, places

    # Token 3 is in the text, at a position that does not count.
    sums = Sums(2, 2, *places(np.array([[3, 1], [1, 2]]), 5), "cpu")
    y_ND = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]])
    sums.add(torch.tensor([1, 1, 2]), torch.randn(3, 2), y_ND)
    found = sums.fit(1)
    means = found.by_token_TD[found.place_V]
    assert means.tolist() == [[3, 2], [2, 0], [5, 6], [3, 2], [3, 2]]
    # A row for each token of the text and one for all others, whatever the vocabulary.
    large = Sums(2, 2, *places(np.array([7, 9]), 10**6), "cpu")
    large.add(torch.tensor([7, 9]), torch.randn(2, 2), y_ND[:2])
    assert large.fit(1).by_token_TD.shape == (3, 2)


def test_a_large_vocabulary_takes_fewer_rows_at_once():
    """Numbers do not depend on it: see the batch sizes above."""
    sizes = {1536: (128, 64), 49153: (160, 8), 10**8: (128, 1)}
    for vocab_size, (ctx_len, rows) in sizes.items():
        store = TokenStore(Path(), vocab_size, ctx_len, PAD, BOS, EOS, ())
        assert store.rows_at_once(64) == rows
        assert rows == 1 or rows * vocab_size * ctx_len <= 2**26


def test_all_layers_at_once_against_hooks(models, coders, evaluated):
    model = models["dense"]
    means = [torch.from_numpy(seen(model, VALID, layer)[1].mean(0)) for layer in range(2)]
    floor = naive_intervened(
        model, CHOSEN, {i: lambda x, y, m=m: m.expand_as(y) for i, m in enumerate(means)}
    )
    assert [row["family"] for row in evaluated[3]] == list(CODERS)
    for row in evaluated[3]:

        def splice(coder):
            def make(x, y):
                read = (x if coder.cfg.transcode else y).flatten(0, 1)
                return coder(read).sae_out.view_as(y)

            return make

        chain = {i: splice(coder) for i, coder in enumerate(coders[row["family"]])}
        with torch.no_grad():
            loss = naive_intervened(model, CHOSEN, chain)
        assert row["loss_ablate"] == pytest.approx(floor, rel=1e-11)
        assert row["loss_splice"] == pytest.approx(loss, rel=1e-11)
    together = evaluation.ablate_together(model, batches(CHOSEN, 4), means)
    assert together["joint_all"] == pytest.approx(floor - row["loss_clean"], rel=1e-8)
    # Of two layers, all but the first are one.
    assert together["joint"] == pytest.approx(evaluated[1][1]["cost"], rel=1e-8)


def test_native_activity_against_a_dense_encoder(models):
    model = models["sparse"]
    found = evaluation.survey(model, batches(VALID, 4))
    for layer, activity in enumerate(found.activity):
        x_ND, _ = seen(model, VALID, layer)
        encoder = model.gpt_neox.layers[layer].mlp.encoder
        pre_NL = x_ND @ encoder.weight.numpy().T + encoder.bias.numpy()
        groups_NKG = pre_NL.reshape(len(x_ND), 4, 16)
        active_NK = groups_NKG.max(-1) > 0
        assert activity.l0 == pytest.approx(active_NK.sum(1).mean())
        winners_NK = groups_NKG.argmax(-1) + 16 * np.arange(4)
        used = set(winners_NK[active_NK].tolist())
        assert activity.dead == pytest.approx(1 - len(used) / 64)
    assert evaluation.survey(models["dense"], batches(VALID, 4)).activity == []


def test_positions_start_anew_with_each_document(models):
    tokens = torch.tensor([[BOS, 5, 6, EOS, BOS, 7, 8, 9], [BOS, 5, 6, 7, 8, 9, EOS, BOS]])
    positions = feedforward.document_positions(tokens, BOS)
    assert positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 0]]
    # Attention does not cross: the second document is as if it stood alone.
    _, within = feedforward.read(models["dense"], tokens[:1], positions[:1])
    _, alone = feedforward.read(models["dense"], tokens[:1, 4:])
    torch.testing.assert_close(within[:, 4:], alone)
    _, across = feedforward.read(models["dense"], tokens[:1])
    assert (across[:, 4:] - alone).abs().max() > 1e-3
