"""What is read and replaced in every kind of model, against the model's own forward pass."""

from __future__ import annotations

import pytest
import tiny_bases
import torch

from clearnets import UserError
from clearnets.coders import feedforward
from clearnets.latents.hooks import capture
from clearnets.models import hookpoints
from clearnets.models.pretrained import KINDS

VOCAB = 24


@pytest.fixture(scope="module", params=sorted(KINDS))
def model(request):
    return tiny_bases.make(request.param, vocab_size=VOCAB, eos=1)


def tokens(rows: int = 3, length: int = 14) -> torch.Tensor:
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


def test_reading_leaves_the_model_as_it_is_and_sees_every_layer(model):
    tokens_BS = tokens()
    reading, hidden_BSD = feedforward.read(model, tokens_BS)
    logits = model(tokens_BS, use_cache=False).logits
    torch.testing.assert_close(model.get_output_embeddings()(hidden_BSD), logits)
    # transformers' own record: what the last layer gives comes behind the final norm there.
    own = model(tokens_BS, use_cache=False, output_hidden_states=True).hidden_states
    for layer, residual_BSD in enumerate(reading.residual[:-1]):
        assert torch.equal(residual_BSD, own[layer + 1])
    for module, x_BSD, y_BSD in zip(hookpoints.modules(model), reading.inputs, reading.outputs):
        assert torch.equal(module(x_BSD), y_BSD)


def test_of_some_layers_the_same_is_read_and_replayed_as_of_all(model):
    tokens_BS = tokens()
    every, hidden_BSD = feedforward.read(model, tokens_BS)
    names, (projections, width) = hookpoints.names(model), hookpoints.projections(model)
    model.config.read_layers = [0, 2]
    try:
        some, _ = feedforward.read(model, tokens_BS)
        assert hookpoints.names(model) == [names[0], names[2]]
        assert hookpoints.projections(model) == ([projections[0], projections[2]], width)
        for part in ("inputs", "outputs", "residual"):
            for place, layer in enumerate((0, 2)):
                assert torch.equal(getattr(some, part)[place], getattr(every, part)[layer])
        for place in range(2):
            again_BSD = feedforward.run_above(model, place, some.residual[place], tokens_BS)
            assert torch.equal(again_BSD, hidden_BSD)
        where_BS = torch.ones_like(tokens_BS, dtype=torch.bool)
        with feedforward.replaced(model, {1: lambda x, y: 0.5 * y}, where_BS):
            _, by_place_BSD = feedforward.read(model, tokens_BS)
        hookpoints.check(model, tokens_BS)
    finally:
        del model.config.read_layers
    with feedforward.replaced(model, {2: lambda x, y: 0.5 * y}, where_BS):
        _, by_number_BSD = feedforward.read(model, tokens_BS)
    assert torch.equal(by_place_BSD, by_number_BSD)


def test_replaying_the_stream_behind_any_layer_changes_nothing(model):
    tokens_BS = tokens()
    reading, hidden_BSD = feedforward.read(model, tokens_BS)
    before = list(hookpoints.layers(model))
    for layer in range(tiny_bases.LAYERS):
        again_BSD = feedforward.run_above(model, layer, reading.residual[layer], tokens_BS)
        assert torch.equal(again_BSD, hidden_BSD)
    assert list(hookpoints.layers(model)) == before


def test_a_change_of_the_stream_is_a_change_of_the_feedforward(model):
    """The shortcut of `evaluate` against the model run from its tokens with another output."""
    tokens_BS = tokens()
    reading, _ = feedforward.read(model, tokens_BS)
    where_BS = torch.zeros_like(tokens_BS, dtype=torch.bool)
    where_BS[:, 3:9] = True
    for layer in range(tiny_bases.LAYERS):
        with feedforward.replaced(model, {layer: lambda x, y: 0.5 * y}, where_BS):
            _, expected_BSD = feedforward.read(model, tokens_BS)
        residual_BSD = reading.residual[layer].clone()
        residual_BSD[where_BS] -= 0.5 * reading.outputs[layer][where_BS]
        got_BSD = feedforward.run_above(model, layer, residual_BSD, tokens_BS)
        torch.testing.assert_close(got_BSD, expected_BSD, rtol=1e-4, atol=1e-5)


def test_positions_that_start_anew_keep_attention_within_documents(model):
    bos = 0
    tokens_BS = tokens(rows=2, length=12)
    tokens_BS[:, [0, 5]] = bos
    positions_BS = feedforward.document_positions(tokens_BS, bos)
    _, packed_BSD = feedforward.read(model, tokens_BS, positions_BS)
    _, alone_BSD = feedforward.read(model, tokens_BS[:, 5:])
    torch.testing.assert_close(packed_BSD[:, 5:], alone_BSD, rtol=1e-4, atol=1e-5)


def test_names_and_neurons(model):
    kind = hookpoints.kind(model)
    names = hookpoints.names(model)
    assert names == [f"{kind.layers}.{layer}.mlp" for layer in range(tiny_bases.LAYERS)]
    projections, width = hookpoints.projections(model)
    assert width == tiny_bases.INNER
    for name, module in zip(projections, hookpoints.modules(model)):
        with capture(model, [name], inputs=True) as seen:
            y_BSD = module(torch.randn(1, 2, tiny_bases.HIDDEN))
        # The last of the feedforward's maps: its output is the feedforward's.
        neurons_BSW, output_BSD = seen[name]
        assert torch.equal(output_BSD, y_BSD)
        assert neurons_BSW.shape[-1] == width


def refusal(model, pattern: str) -> str:
    model.config.hookpoints = pattern
    try:
        with pytest.raises(UserError) as error:
            hookpoints.check(model, tokens(2, 6))
    finally:
        del model.config.hookpoints
    assert "\n" not in str(error.value)
    return str(error.value)


def test_feedforwards_pass_and_others_are_refused(model):
    hookpoints.check(model, tokens(2, 6))
    kind = hookpoints.kind(model)
    layers = kind.layers
    there = [name for name, _ in hookpoints.layers(model)[0].named_children()]
    other = "h" if layers == "layers" else "layers"
    for pattern in (f"{layers}.*.mpl", f"{other}.*.mlp"):
        said = refusal(model, pattern)
        assert f"hookpoints {pattern} match no module; there are: {layers}.*." in said
        assert all(f"{layers}.*.{name}" in said for name in there)
    attention = next(name for name in there if name in ("attention", "attn", "self_attn"))
    says = f"do not map a tensor to a tensor; choose {kind.feedforwards}"
    assert says in refusal(model, f"{layers}.*.{attention}")
    norm = next(name for name in there if "norm" in name or name.startswith("ln"))
    for module in (norm, kind.projection.replace("4h_to_h", "h_to_4h").replace("proj", "fc")):
        if module in dict(hookpoints.layers(model)[0].named_modules()):
            assert "not the last that a layer adds" in refusal(model, f"{layers}.*.{module}")


def test_the_last_projection_alone_passes(model):
    """Its input is wider than its output: SAEs can be trained there."""
    kind = hookpoints.kind(model)
    model.config.hookpoints = f"{kind.layers}.*.{kind.projection}"
    try:
        hookpoints.check(model, tokens(2, 6))
        reading, _ = feedforward.read(model, tokens())
    finally:
        del model.config.hookpoints
    assert reading.inputs[0].shape[-1] == tiny_bases.INNER
    assert reading.outputs[0].shape[-1] == tiny_bases.HIDDEN
