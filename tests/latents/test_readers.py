"""Every family's latents against a computation of another kind."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_pipeline as tiny
import torch

from clearnets import UserError
from clearnets.families import FAMILIES
from clearnets.latents.readers import NeuronReader, TokenReader, load_encoder, open_reader
from clearnets.models.loading import load
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import seed_for


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.make_all()
    return folder


@pytest.fixture
def ids_BS(root, monkeypatch):
    monkeypatch.chdir(root)
    return torch.from_numpy(np.load(paths.data() / "tokens/explain.npy").astype(np.int64))


def densify(latents, num_latents: int) -> np.ndarray:
    acts_BSK, indices_BSK = (part.numpy() for part in latents)
    dense_BSL = np.zeros((*acts_BSK.shape[:2], num_latents), np.float32)
    np.put_along_axis(dense_BSL, indices_BSK, acts_BSK, axis=-1)
    assert (dense_BSL > 0).sum() == (acts_BSK > 0).sum(), "an active latent occurs twice"
    return dense_BSL


def largest(dense_BSL: np.ndarray, k: int) -> np.ndarray:
    """All but the k largest of each token set to zero, by a full sort."""
    threshold_BS1 = np.sort(dense_BSL, axis=-1)[..., -k, None]
    return np.where(dense_BSL >= threshold_BS1, dense_BSL, 0)


@torch.no_grad()
def mlp_traffic(model, ids_BS: torch.Tensor, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of a dense feedforward, from inside the module."""
    block = model.gpt_neox.layers[layer]
    taken = []
    block.mlp.dense_h_to_4h.register_forward_pre_hook(lambda _, args: taken.append(args[0]))
    model.gpt_neox(ids_BS)
    output_BSD = block.mlp(taken[0])
    return taken[0].numpy(), output_BSD.numpy()


CODERS = ["sae", "transcoder", "skip-transcoder", "random-sae", "step0-transcoder", "step0-sae"]


@pytest.mark.parametrize("family", CODERS)
def test_coders_equal_a_dense_encoding(family, ids_BS):
    reader = open_reader(family, 0, k=tiny.K)
    assert reader.hookpoints == ("layers.0.mlp", "layers.1.mlp")
    assert reader.num_latents == tiny.LATENTS
    latents = reader(ids_BS)
    model = load(paths.checkpoint("dense", 0, 7))
    if family.startswith("step0"):
        # What training with this seed begins with.
        sizes = {"vocab_size": 270, "ctx_len": tiny.CTX, "pad": 0, "bos": 1, "eos": 2}
        begun = seed_for(0, "init")
        model = build_model(tiny.config().model, mlp="dense", **sizes, seed=begun).eval()
    for layer, point in enumerate(reader.hookpoints):
        encoder = load_encoder(paths.coders(family, 0) / point)
        input_BSD, output_BSD = mlp_traffic(model, ids_BS, layer)
        sae = family.endswith("sae")
        x_BSD = output_BSD - encoder.b_dec_D.numpy() if sae else input_BSD
        pre_BSL = x_BSD @ encoder.weight_LD.numpy().T + encoder.bias_L.numpy()
        expected_BSL = largest(np.maximum(pre_BSL, 0), tiny.K)
        np.testing.assert_allclose(
            densify(latents[point], tiny.LATENTS), expected_BSL, rtol=1e-4, atol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize(("family", "step"), [("native", 7), ("random-native", 0)])
def test_native_latents_are_those_that_the_model_computes_with(family, step, ids_BS):
    latents = open_reader(family, 0, layers=[1], k=tiny.K)(ids_BS)
    assert list(latents) == ["layers.1.mlp"]
    model = load(paths.checkpoint("sparse", 0, step))
    mlp = model.gpt_neox.layers[1].mlp
    seen = {}
    mlp.register_forward_hook(lambda _, args, out: seen.update(x=args[0], y=out))
    model(ids_BS)
    # What the latents decode to is what the feedforward gave.
    torch.testing.assert_close(mlp.decoder(*latents["layers.1.mlp"]), seen["y"])
    groups_BSKg = (seen["x"] @ mlp.encoder.weight.T + mlp.encoder.bias).unflatten(-1, (tiny.K, -1))
    maxima_BSK = groups_BSKg.amax(-1).clamp(min=0)
    torch.testing.assert_close(latents["layers.1.mlp"][0], maxima_BSK)


@torch.no_grad()
def test_neurons_are_one_sided_and_the_largest_by_magnitude(ids_BS):
    reader = open_reader("neurons", 0, k=tiny.K)
    assert isinstance(reader, NeuronReader)
    width = 4 * tiny.HIDDEN
    assert reader.num_latents == 2 * width
    model = load(paths.checkpoint("dense", 0, 7))
    input_BSD, _ = mlp_traffic(model, ids_BS, 0)
    mlp = model.gpt_neox.layers[0].mlp
    post_BSW = torch.nn.functional.gelu(mlp.dense_h_to_4h(torch.from_numpy(input_BSD))).numpy()
    got_BSL = densify(reader(ids_BS)["layers.0.mlp"], reader.num_latents)
    for row, position in np.ndindex(*post_BSW.shape[:2]):
        post_W = post_BSW[row, position]
        expected_L = np.zeros(2 * width, np.float32)
        for neuron in sorted(range(width), key=lambda i: -abs(post_W[i]))[: tiny.K]:
            side = neuron if post_W[neuron] > 0 else neuron + width
            expected_L[side] = abs(post_W[neuron])
        np.testing.assert_allclose(got_BSL[row, position], expected_L, rtol=1e-4, atol=1e-6)


def test_token_unigram_needs_no_model(ids_BS):
    reader = open_reader("token-unigram", 0, k=tiny.K)
    assert isinstance(reader, TokenReader)
    acts_BS1, indices_BS1 = reader(ids_BS)["tokens"]
    assert (acts_BS1 == 1).all()
    assert torch.equal(indices_BS1.squeeze(-1), ids_BS)


def test_every_family_opens(root, monkeypatch):
    monkeypatch.chdir(root)
    for family in FAMILIES:
        assert open_reader(family, 0, k=tiny.K).num_latents > 0
    with pytest.raises(UserError, match="unknown family 'neuron'; known: native"):
        open_reader("neuron", 0, k=tiny.K)  # pyright: ignore[reportArgumentType]


def test_a_damaged_coder_names_the_cure(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = paths.coders("sae", 0) / "layers.0.mlp"
    folder.mkdir(parents=True)
    source = root / folder
    (folder / "cfg.json").write_bytes((source / "cfg.json").read_bytes())
    with pytest.raises(UserError, match=r"missing.*sparsify@sae"):
        load_encoder(folder)
    (folder / "sae.safetensors").write_bytes((source / "sae.safetensors").read_bytes()[:-5])
    with pytest.raises(UserError, match=r"unreadable.*sparsify@sae"):
        load_encoder(folder)


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_encoding_equals_sparsify_bit_for_bit(activation, transcode, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SparseCoder, SparseCoderConfig

    torch.manual_seed(0)
    cfg = SparseCoderConfig(num_latents=1024, k=8, activation=activation, transcode=transcode)
    coder = SparseCoder(16, cfg)
    torch.nn.init.normal_(coder.encoder.bias)
    torch.nn.init.normal_(coder.b_dec)
    coder.save_to_disk(tmp_path)
    # More rows than one piece of the encoding holds, and a last piece that is not full.
    x_BSD = torch.randn(5, 1000, 16)
    with torch.no_grad():
        expected = SparseCoder.load_from_disk(tmp_path).encode(x_BSD.flatten(0, 1))
        acts_BSK, indices_BSK = load_encoder(tmp_path)(x_BSD)
    # Which latents fill the places of those that are not active has no meaning.
    codes_NL, expected_NL = torch.zeros(2, len(expected.top_acts), cfg.num_latents)
    codes_NL.scatter_(1, indices_BSK.flatten(0, 1), acts_BSK.flatten(0, 1))
    expected_NL.scatter_(1, expected.top_indices, expected.top_acts)
    assert torch.equal(codes_NL, expected_NL)
