"""Classifiers of pictures: what their hookpoints give, their sparse feedforward, their seeds."""

import pytest
import torch
from torch.nn.functional import embedding_bag

from clearnets import UserError
from clearnets.config import ConvNeXtV2, SparseFeedforward, SwinV2, ViT
from clearnets.latents.hooks import capture
from clearnets.models.classifiers import build_classifier, hookpoints, latents

SPARSE = SparseFeedforward(kind="sparse", expansion=4, k=8)
VIT = {"kind": "vit", "patch_size": 4, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
MODELS = {
    "vit": ViT(**VIT, mlp_ratio=4),
    "vit-sparse": ViT(**VIT, mlp_ratio=4, feedforward=SPARSE),
    "swinv2": SwinV2(
        kind="swinv2", patch_size=2, embed_dim=8, depths=(2, 1), num_heads=(2, 4), window_size=3
    ),
    "convnextv2": ConvNeXtV2(kind="convnextv2", patch_size=2, hidden_sizes=(8, 16), depths=(1, 2)),
}
# What a layer adds by its attention and by its feedforward: as many pairs as layers.
LAYERS = {
    "vit": ["layers.0", "layers.1"],
    "vit-sparse": ["layers.0", "layers.1"],
    "swinv2": [f"encoder.layers.{name}" for name in ("0.blocks.0", "0.blocks.1", "1.blocks.0")],
    "convnextv2": [f"encoder.stages.{name}" for name in ("0.layers.0", "1.layers.0", "1.layers.1")],
}


def build(name, seed=0, shape=(3, 16, 16)):
    return build_classifier(MODELS[name], shape=shape, classes=5, seed=seed).eval()


@pytest.fixture
def x_BCHW():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_hookpoints_give_what_each_layer_adds(name, x_BCHW):
    model = build(name)
    ends = {"convnextv2": [".pwconv2"], "swinv2": [".layernorm_before", ".layernorm_after"]}
    ends = ends.get(name, [".attention.o_proj", ".mlp"])
    names = hookpoints(model)
    assert names == [layer + end for layer in LAYERS[name] for end in ends]
    with (
        capture(model, names, inputs=True) as seen,
        capture(model, LAYERS[name], inputs=True) as layers,
    ):
        assert model(pixel_values=x_BCHW).logits.shape == (3, 5)
    for hookpoint in names:
        taken, given = seen[hookpoint]
        assert isinstance(given, torch.Tensor)
        module = model.base_model.get_submodule(hookpoint)
        torch.testing.assert_close(given, module(taken))
        assert len(given) == len(x_BCHW)
    for layer in LAYERS[name]:
        residual, out = layers[layer]
        out = out[0] if isinstance(out, tuple) else out
        added = [seen[layer + end][1] for end in ends]
        total = added[0].permute(0, 3, 1, 2) if name == "convnextv2" else sum(added)
        torch.testing.assert_close(residual + total, out)


@pytest.mark.parametrize("name", MODELS)
def test_weights_follow_from_the_seed_alone(name):
    torch.manual_seed(1)
    first = build(name, seed=7).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, other = build(name, seed=7).state_dict(), build(name, seed=8).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@torch.no_grad()
def test_a_sparse_feedforward_is_its_active_latents_decoded(x_BCHW):
    model = build("vit-sparse")
    assert latents(model) == ["layers.0.mlp.encoder", "layers.1.mlp.encoder"]
    assert latents(build("vit")) == latents(build("swinv2")) == []
    with capture(model, [*latents(model), "layers.1.mlp"], inputs=True) as seen:
        model(pixel_values=x_BCHW)
    taken, (acts, indices) = seen["layers.1.mlp.encoder"]
    mlp = model.base_model.layers[1].mlp
    pre = torch.relu(taken @ mlp.encoder.weight.T + mlp.encoder.bias)
    groups = pre.view(*pre.shape[:-1], SPARSE.k, -1).max(-1)
    torch.testing.assert_close(acts, groups.values)
    decoded = embedding_bag(
        indices.flatten(0, 1), mlp.decoder.weight, per_sample_weights=acts.flatten(0, 1), mode="sum"
    )
    given = seen["layers.1.mlp"][1]
    torch.testing.assert_close(given, decoded.view_as(given) + mlp.decoder.bias)
    # Initialised as in the language models: not empty and not dead.
    assert 0.2 < acts.gt(0).float().mean() <= 1
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("vit", (1, 8, 9), "pictures of 8 by 9 pixels are not square"),
        ("vit", (1, 10, 10), "a patch_size of 4 does not divide pictures of 10 pixels"),
        ("vit", (1, 2, 2), "a patch_size of 4 does not divide"),
        ("convnextv2", (1, 2, 2), "1 patches along a side cannot be halved in 2 stages"),
    ],
)
def test_pictures_that_do_not_fit(name, shape, reason):
    with pytest.raises(UserError, match=reason):
        build(name, shape=shape)
