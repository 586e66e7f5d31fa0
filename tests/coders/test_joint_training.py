"""Coders of all layers trained together: end to end, and cross-layer ones."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_pair import build_models, tiny_config
from tiny_training import (
    NAMES,
    PER_READ,
    STEPS,
    Stopped,
    assert_same_bits,
    batch,
    batches,
    stop_at,
)
from torch import nn

from clearnets.coders import cross_layer, end_to_end, evaluation, feedforward, library, training
from clearnets.families import FAMILIES

KINDS = ("e2e-transcoder", "cross-layer-transcoder")
SIZES = {"d_in": 16, "num_latents": 64, "k": 4}


@pytest.fixture(scope="module")
def model():
    return build_models(tiny_config())["dense"]


def new_coders(family: str, *, noise: float = 0.0):
    """Coders of both layers; with noise, at a generic point and in double precision."""
    kind, generator = FAMILIES[family].coder_kind, torch.Generator().manual_seed(5)
    coders = {name: library.new_coder(name, **kind, **SIZES, seed=0) for name in NAMES}
    if FAMILIES[family].cross_layer:
        cross_layer.extend(coders)
    for coder in coders.values() if noise else ():
        with torch.no_grad():
            for parameter in coder.double().parameters():
                parameter += noise * torch.randn(parameter.shape, generator=generator).double()
    return coders


def chain(model, family: str, coders, state):
    gradient = {
        "transcoder": training.separately,
        "e2e-transcoder": partial(end_to_end.add_gradient, model, fvu=0.0),
        "cross-layer-transcoder": cross_layer.add_gradient,
    }[family]
    return training.Chain(coders, state / "coders.pt", gradient)


def trained(model, family: str, state, *, rate: float = 5e-3, on_step=lambda _: None, **pieces):
    coders = new_coders(family)
    (report,) = training.train(
        model,
        [chain(model, family, coders, state)],
        batches,
        training.Schedule("adam", rate, 2, STEPS, **pieces),
        per_read=PER_READ,
        on_step=on_step,
        save_every=5,
    )
    return coders, report


def activations(model):
    return training._Reader(model, batches, STEPS, PER_READ)(1)


def naive(coder, x_ND):
    """Codes (N, L) as a dense matrix, by torch's own top-k."""
    pre_NL = (x_ND @ coder.encoder.weight.T + coder.encoder.bias).relu()
    return torch.zeros_like(pre_NL).scatter(-1, *reversed(pre_NL.topk(4)))


class Spliced(nn.Module):
    """A feedforward with a naive coder in its place where a mask is true."""

    def __init__(self, mlp, coder, counted_BS) -> None:
        super().__init__()
        self._parts = (mlp, coder, counted_BS)
        self.made_ND = torch.empty(0)

    def forward(self, x_BSD):
        mlp, coder, counted_BS = self._parts
        made_BSD = naive(coder, x_BSD) @ coder.W_dec + coder.b_dec
        self.made_ND = made_BSD[counted_BS]
        return torch.where(counted_BS[..., None], made_BSD, mlp(x_BSD))


def gradients(coders):
    found = {f"{n}.{p}": t.grad for n, coder in coders.items() for p, t in coder.named_parameters()}
    for coder in coders.values():
        coder.zero_grad()
    return found


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-11, msg=name)
        assert gradient.abs().max() > 1e-6, name


@pytest.mark.parametrize(("pieces", "fvu"), [(1, 0.0), (1, 0.5), (3, 0.5)])
def test_end_to_end_gradient_equals_autograds_of_a_naive_model(pieces, fvu):
    model, coders = build_models(tiny_config())["dense"].double(), new_coders(KINDS[0], noise=0.2)
    read, one = activations(model), batch(1)
    schedule = training.Schedule("adam", 1.0, 0, 1, grad_acc_steps=2, micro_acc_steps=pieces)
    losses = end_to_end.add_gradient(model, coders, read, schedule, fvu=fvu)
    found = gradients(coders)

    targets_BS = one.predicted_BS[:, 1:]
    clean_MV = model(one.tokens_BS).logits[:, :-1][targets_BS].softmax(-1)
    for layer, coder in zip(model.gpt_neox.layers, coders.values()):
        layer.mlp = Spliced(layer.mlp, coder, one.counted_BS)
    made_MV = model(one.tokens_BS).logits[:, :-1][targets_BS].softmax(-1)
    kl = (clean_MV * (clean_MV / made_MV).log()).sum(-1).mean()
    fvus = [
        ((layer.mlp.made_ND - y_ND) ** 2).sum() / ((y_ND - y_ND.mean(0)) ** 2).sum()
        for layer, y_ND in zip(model.gpt_neox.layers, read.outputs.values())
    ]
    loss = kl + fvu * sum(fvus) / 2
    (loss / 2).backward()
    assert_close(found, gradients(coders))
    assert sum(float(piece.value) for piece in losses[NAMES[0]]) == pytest.approx(loss.item())


@pytest.mark.parametrize("pieces", [1, 3])
def test_cross_layer_gradient_equals_autograds_of_dense_codes(pieces):
    model, coders = build_models(tiny_config())["dense"].double(), new_coders(KINDS[1], noise=0.2)
    read = activations(model)
    schedule = training.Schedule("adam", 1.0, 0, 1, micro_acc_steps=pieces)
    losses = cross_layer.add_gradient(coders, read, schedule)
    found = gradients(coders)
    assert sum("W_cross" in name for name in found) == 1

    first, second = coders.values()
    (x0, x1), (y0, y1) = read.inputs.values(), read.outputs.values()
    made0 = naive(first, x0) @ first.W_dec + first.b_dec
    made1 = naive(first, x0) @ first.W_cross + naive(second, x1) @ second.W_dec + second.b_dec
    fvus = [
        ((made - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
        for made, y in ((made0, y0), (made1, y1))
    ]
    sum(fvus).backward()
    assert_close(found, gradients(coders))
    for fvu, name in zip(fvus, NAMES):
        assert float(sum(piece.value for piece in losses[name])) == pytest.approx(fvu.item())


def spliced_loss(model, coders) -> float:
    """The spliced loss on the rows of training."""
    every = [batches(range(STEPS))]
    means = evaluation.survey(model, every).means
    (row,) = evaluation.splice_all(model, {"it": list(coders.values())}, means, every)
    return row["loss_splice"] - row["loss_clean"]


def test_end_to_end_coders_splice_better_than_those_trained_on_fvu(model, tmp_path):
    costs = {
        family: [
            spliced_loss(model, trained(model, family, tmp_path / f"{rate}{family}", rate=rate)[0])
            for rate in (5e-3, 1e-2, 2e-2)
        ]
        for family in ("transcoder", "e2e-transcoder")
    }
    assert min(costs["e2e-transcoder"]) < 0.9 * min(costs["transcoder"])


def test_training_lowers_the_divergence(model, tmp_path):
    read, schedule = activations(model), training.Schedule("adam", 1.0, 0, 1)
    values = []
    for coders in (new_coders(KINDS[0]), trained(model, KINDS[0], tmp_path, rate=2e-2)[0]):
        losses = end_to_end.add_gradient(model, coders, read, schedule, fvu=0.0)
        values.append(float(losses[NAMES[0]][0].value))
    assert values[1] < 0.7 * values[0]


def test_writing_to_later_layers_explains_them_better(model, tmp_path):
    _, apart = trained(model, "transcoder", tmp_path / "apart", rate=2e-2)
    _, report = trained(model, "cross-layer-transcoder", tmp_path / "cross", rate=2e-2)
    assert report.fvu[NAMES[0]] < 1.1 * apart.fvu[NAMES[0]]
    assert report.fvu[NAMES[1]] < apart.fvu[NAMES[1]]


@pytest.mark.parametrize("family", KINDS)
def test_interrupted_run_goes_on_to_the_same_bits(family, model, tmp_path):
    expected, report = trained(model, family, tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(model, family, tmp_path / "cut", on_step=stop_at(7))
    steps = []
    resumed, again = trained(model, family, tmp_path / "cut", on_step=steps.append)
    assert steps == list(range(5, STEPS))
    assert_same_bits(expected, resumed)
    assert report == again


@pytest.mark.parametrize("family", KINDS)
def test_bfloat16_is_of_the_coders_alone(family, model, tmp_path):
    _, report = trained(model, family, tmp_path / "exact")
    coders, again = trained(model, family, tmp_path / "rounded", precision="bfloat16")
    for name, coder in coders.items():
        assert {p.dtype for p in coder.parameters()} == {torch.float32}
        assert 1e-6 < abs(again.fvu[name] - report.fvu[name]) < 0.05


def test_saved_cross_layer_coders_are_sparsifys_and_come_back(model, tmp_path):
    coders = new_coders(KINDS[1], noise=0.2)
    before = {name: coder.state_dict() for name, coder in coders.items()}
    cross_layer.save(coders, tmp_path)
    theirs = library.coder_class().load_many(str(tmp_path), local=True)
    loaded = cross_layer.load(tmp_path, NAMES)
    for (name, expected), coder in zip(before.items(), loaded):
        assert coder.state_dict().keys() == expected.keys() == coders[name].state_dict().keys()
        for key, tensor in coder.state_dict().items():
            assert torch.equal(tensor, expected[key]), key
        assert torch.equal(theirs[name].W_dec, expected["W_dec"])
    assert [cross_layer.later_layers(coder) for coder in loaded] == [1, 0]
    assert not (tmp_path / NAMES[1] / cross_layer.CROSS).exists()


def test_spliced_cross_layer_coders_equal_a_loop_over_layers(model):
    """All layers at once by naive modules; each layer alone with latents of the clean model."""
    dense = build_models(tiny_config())["dense"].double()
    coders, one = new_coders(KINDS[1], noise=0.2), batch(1)
    first, second = coders.values()
    means = evaluation.survey(dense, [one]).means
    chains = {"it": [first, second]}
    (row,) = evaluation.splice_all(dense, chains, means, [one])
    ablation = evaluation.ablate(dense, [one], means)
    rows_RS = one.tokens_BS.numpy()
    plain = evaluation.fit_baselines(dense, [one], k=4, rows_RS=rows_RS, vocab_size=48)
    rows = evaluation.evaluate_coders(
        dense, chains, plain, means, ablation, intervened=[one], others=[]
    )
    reading, _ = feedforward.read(dense, one.tokens_BS)

    def loss(*, spliced: tuple[int, ...]) -> float:
        codes = naive(first, reading.inputs[0])

        def on_first(_, args, out):
            return torch.where(counted, codes @ first.W_dec + first.b_dec, out)

        def on_second(_, args, out):
            made = codes @ first.W_cross + naive(second, args[0]) @ second.W_dec + second.b_dec
            return torch.where(counted, made, out)

        counted = one.counted_BS[..., None]
        layers = dense.gpt_neox.layers
        hooks = (on_first, on_second)
        handles = [layers[i].mlp.register_forward_hook(hooks[i]) for i in spliced]
        logits = dense(one.tokens_BS).logits[:, :-1][one.predicted_BS[:, 1:]]
        for handle in handles:
            handle.remove()
        targets = one.tokens_BS[:, 1:][one.predicted_BS[:, 1:]]
        return float(nn.functional.cross_entropy(logits, targets))

    with torch.no_grad():
        assert row["loss_splice"] == pytest.approx(loss(spliced=(0, 1)))
        for layer in (0, 1):
            assert rows[layer]["loss_splice"] == pytest.approx(loss(spliced=(layer,)))
        x, y = (part[1][one.counted_BS] for part in (reading.inputs, reading.outputs))
        codes = naive(first, reading.inputs[0][one.counted_BS])
        made = codes @ first.W_cross + naive(second, x) @ second.W_dec + second.b_dec
        fvu = ((made - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
    assert rows[1]["fvu"] == pytest.approx(float(fvu))
