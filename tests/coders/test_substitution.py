"""Runs with something in the place of latents, against hooks, naive losses and `evaluation`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from tiny_pair import BOS, CTX, EOS, PAD, VOCAB, build_models, padded_rows, tiny_config

from clearnets.autointerp.execution import NAMES, STAND_INS, Decoder, calibrate
from clearnets.coders import evaluation, feedforward, library, substitution, written
from clearnets.coders.batches import make_batch
from clearnets.coders.substitution import CLEAN, EXACT, Layer, measure, substitute
from clearnets.data.tokens import TokenStore
from clearnets.families import FAMILIES

STORE = TokenStore(Path(), VOCAB, CTX, PAD, BOS, EOS, ())
ROWS = padded_rows(9, 1)
BATCH = make_batch(STORE, ROWS, "cpu")
ALL = slice(None)
COUNT = int(BATCH.counted_BS.sum())


@pytest.fixture(scope="module")
def models():
    return {name: model.double() for name, model in build_models(tiny_config()).items()}


def coders(family: str):
    """Coders at a generic point."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for layer in range(2):
        sizes = {"d_in": 16, "num_latents": 64, "k": 4}
        kind = FAMILIES[family].coder_kind
        coder = library.new_coder(f"layers.{layer}.mlp", **kind, **sizes, seed=0).double()
        with torch.no_grad():
            for parameter in coder.parameters():
                noise = torch.randn(parameter.shape, generator=generator).double()
                parameter += 0.1 * noise
        made.append(coder)
    return made


def read(model):
    reading, _ = feedforward.read(model, BATCH.tokens_BS)
    return [
        (x_BSD[BATCH.counted_BS], y_BSD[BATCH.counted_BS])
        for x_BSD, y_BSD in zip(reading.inputs, reading.outputs)
    ]


def test_native_latents_write_the_feedforwards_output(models):
    model = models["sparse"]
    for one, (x_ND, y_ND) in zip(written.of_native(model), read(model)):
        acts, indices = one.encode(x_ND, y_ND)
        codes = torch.zeros(COUNT, len(one.weight_LD)).double().scatter_(1, indices, acts)
        assert torch.allclose(codes @ one.weight_LD + one.bias_D, y_ND)
        assert one.output(x_ND, y_ND) is y_ND


def test_all_neurons_write_the_feedforwards_output(models):
    model = models["dense"]
    made = written.open_written(model, FAMILIES["neurons"], None, k=64)
    assert len(made[0].weight_LD) == 128
    for one, (x_ND, y_ND) in zip(made, read(model)):
        assert torch.allclose(one.output(x_ND, y_ND), y_ND)
    few = written.of_neurons(model, 3)
    for one, (x_ND, y_ND) in zip(few, read(model)):
        acts, indices = one.encode(x_ND, y_ND)
        mlp = model.base_model.layers[few.index(one)].mlp
        post = mlp.act(mlp.dense_h_to_4h(x_ND))
        best = post.abs().topk(3, dim=-1)
        assert torch.allclose(acts.sort(1).values, best.values.sort(1).values)
        signed = torch.where(indices < 64, acts, -acts)
        assert torch.allclose(signed, post.gather(1, indices % 64))


@pytest.mark.parametrize("family", ["sae", "transcoder", "skip-transcoder"])
def test_exact_latents_are_evaluations_splices(models, family):
    model, chain = models["dense"], coders(family)
    layers = [Layer(one, {}) for one in written.of_coders(chain)]
    found = measure(model, layers, BATCH, ALL, [EXACT])
    tokens = found["tokens"].sum()
    means = evaluation.survey(model, [BATCH]).means
    (row,) = evaluation.splice_all(model, {family: chain}, means, [BATCH])
    assert found["clean"].sum() / tokens == pytest.approx(row["loss_clean"], rel=1e-12)
    assert found["nll"][2, 0].sum() / tokens == pytest.approx(row["loss_splice"], rel=1e-12)
    rows = evaluation.evaluate_coders(
        model,
        {family: chain},
        None,
        means,
        evaluation.ablate(model, [BATCH], means),
        intervened=[BATCH],
        others=[],
    )
    alone = found["nll"][:2, 0].sum(axis=-1) / tokens
    assert alone == pytest.approx([row["loss_splice"] for row in rows], rel=1e-12)
    assert np.abs(alone - row["loss_clean"]).min() > 0.01
    assert not found["kl"].any()


def naive(model, layers: dict[int, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities with outputs replaced at counted positions, (B, S, V)."""

    def hook(output_ND):
        def replace(_, __, y_BSD):
            y_BSD = y_BSD.clone()
            y_BSD[BATCH.counted_BS] = output_ND
            return y_BSD

        return replace

    handles = [
        model.base_model.layers[layer].mlp.register_forward_hook(hook(output_ND))
        for layer, output_ND in layers.items()
    ]
    log_BSV = model(BATCH.tokens_BS, use_cache=False).logits.log_softmax(-1)
    for handle in handles:
        handle.remove()
    return log_BSV


def test_losses_and_divergences_are_those_of_a_plain_run(models):
    model, chain = models["dense"], coders("transcoder")
    generator = torch.Generator().manual_seed(5)
    other = [torch.randn(COUNT, 16, generator=generator).double() for _ in range(2)]
    made = [
        Layer(one, {"other": lambda at, y=y: y[at].numpy()})
        for one, y in zip(written.of_coders(chain), other)
    ]
    exact = dict(enumerate(other))
    reads = read(model)
    first = made[0].written.output(*reads[0])
    # With the first layer replaced, the second reads another input.
    seen = []
    handle = model.base_model.layers[1].mlp.register_forward_hook(
        lambda _, args, y: seen.append((args[0][BATCH.counted_BS], y[BATCH.counted_BS]))
    )
    naive(model, {0: first})
    handle.remove()
    expected = {
        (0, EXACT): {0: first},
        (1, EXACT): {1: made[1].written.output(*reads[1])},
        (None, EXACT): {0: first, 1: made[1].written.output(*seen[0])},
        (0, "other"): {0: other[0]},
        (1, "other"): {1: other[1]},
        (None, "other"): exact,
        (None, CLEAN): {},
    }
    got = {(number, name): told for number, name, told in substitute(model, made, BATCH, ALL)}
    assert got.keys() == expected.keys()
    for (number, name), outputs in expected.items():
        log_BSV = naive(model, outputs)
        base_BSV = naive(model, expected[number, EXACT])
        for row in range(len(ROWS)):
            nll = kl = 0.0
            for at in range(BATCH.tokens_BS.shape[1] - 1):
                if not BATCH.predicted_BS[row, at + 1]:
                    continue
                nll -= float(log_BSV[row, at, BATCH.tokens_BS[row, at + 1]])
                chance = base_BSV[row, at].exp()
                kl += float((chance * (base_BSV[row, at] - log_BSV[row, at])).sum())
            assert float(got[number, name].nll_B[row]) == pytest.approx(nll)
            if name != CLEAN:
                assert float(got[number, name].kl_B[row]) == pytest.approx(kl, abs=1e-9)


def test_a_skip_connection_stays_true(models):
    """Latents at zero leave the skip, which reads the running model."""
    model, chain = models["dense"], coders("skip-transcoder")
    zero = np.zeros((COUNT, 16))
    made = [Layer(one, {"zero": lambda at: zero[at]}) for one in written.of_coders(chain)]
    with torch.no_grad():
        for coder in chain:
            coder.W_dec.zero_()
            coder.b_dec.zero_()
    found = measure(model, made, BATCH, ALL, [EXACT, "zero"])
    assert found["nll"][:, 0] == pytest.approx(found["nll"][:, 1])
    assert found["kl"] == pytest.approx(np.zeros_like(found["kl"]), abs=1e-9)
    assert (found["nll"][2, 0] != found["clean"]).all()


def test_simulations_of_latents_that_are_rules_cost_nothing(models):
    """Latents whose activations are levels of known positions: 0 nats, whatever else they are."""
    model, rng = models["dense"], np.random.default_rng(0)
    layers = []
    for _ in range(2):
        fires = csc_array((rng.random((COUNT, 12)) < 0.3).astype(float))
        levels_L = rng.random(12) + 0.5
        codes = csc_array(fires * levels_L)
        decoder = Decoder(rng.normal(size=(12, 16)), rng.normal(size=16))
        dense = torch.from_numpy(codes.toarray())
        indices = torch.arange(12).expand(COUNT, 12)
        one = written.Written(
            lambda x, y, dense=dense, indices=indices: (dense, indices),
            torch.from_numpy(decoder.weight_LD),
            torch.from_numpy(decoder.bias_D),
        )
        simulated = decoder.simulated(fires, calibrate(fires, codes))
        layers.append(Layer(one, {"rules": simulated.output}))
    found = measure(model, layers, BATCH, ALL, [EXACT, "rules"])
    assert found["nll"][:, 1] == pytest.approx(found["nll"][:, 0], abs=1e-4)
    assert found["kl"] == pytest.approx(np.zeros_like(found["kl"]), abs=1e-6)
    assert np.abs(found["nll"][2, 0] - found["clean"]).min() > 0.1


def test_batches_do_not_matter(models):
    model, chain = models["dense"], coders("sae")
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(2, COUNT, 16))
    made = [
        Layer(one, {"other": lambda at, y=y: y[at]})
        for one, y in zip(written.of_coders(chain), outputs)
    ]
    whole = measure(model, made, BATCH, ALL, [EXACT, "other"])
    parts, end = [], 0
    for start in range(0, len(ROWS), 4):
        batch = make_batch(STORE, ROWS[start : start + 4], "cpu")
        begin, end = end, end + int(batch.counted_BS.sum())
        parts.append(measure(model, made, batch, slice(begin, end), [EXACT, "other"]))
    for name, value in whole.items():
        assert np.concatenate([part[name] for part in parts], axis=-1) == pytest.approx(value)


def test_what_is_read_of_each_layer(models):
    model, chain = models["dense"], coders("skip-transcoder")
    made = written.of_coders(chain)
    rest = substitution.outputs(model, BATCH, made)
    codes = substitution.codes(model, BATCH, made)
    for one, (x_ND, y_ND), rest_ND, (acts, _) in zip(made, read(model), rest, codes):
        assert torch.allclose(rest_ND + x_ND @ one.skip_DD.mT, y_ND)
        assert acts.shape == (COUNT, 4)


def test_names_of_stand_ins_are_one_list():
    assert (EXACT, *STAND_INS) == NAMES
