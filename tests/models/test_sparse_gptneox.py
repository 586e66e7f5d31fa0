"""The model against transformers' own GPT-NeoX and against naive constructions."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GPTNeoXConfig
from transformers import GPTNeoXForCausalLM as Reference

from clearnets import UserError
from clearnets.config import MLPS, SPARSE, GPTNeoX
from clearnets.models.loading import load
from clearnets.models.sparse_gptneox import SparseGPTNeoXConfig, SparseGPTNeoXModel, build_model

VOCAB = 50

SMALL = GPTNeoX(
    kind="gptneox",
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    mlp_ratio=4,
    expansion=4,
    k=4,
    rank_ratio=4,
    weight_share=0.5,
    parallel_residual=False,
    rotary_fraction=0.5,
    attention="across",
    zero_unembedding=False,
    init_std=0.2,
    embedding_std=0.2,
)


def build(mlp, *, seed=0, **changes):
    model = SMALL.model_copy(update=changes)
    return build_model(
        model, mlp=mlp, vocab_size=VOCAB, ctx_len=24, pad=0, bos=1, eos=2, seed=seed
    ).eval()


def tokens(rows=3, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (rows, length), generator=generator)


def loss_of(model, ids_BS):
    return model(input_ids=ids_BS, labels=ids_BS).loss


@pytest.mark.parametrize("parallel", [False, True])
def test_dense_equals_transformers_bit_for_bit(parallel):
    ours = build("dense", parallel_residual=parallel).train()
    shared = GPTNeoXConfig().to_dict().keys() - {"model_type", "transformers_version"}
    values = {key: value for key, value in ours.config.to_dict().items() if key in shared}
    theirs = Reference(GPTNeoXConfig(**values)).train()
    theirs.load_state_dict(ours.state_dict())
    ids_BS = tokens()
    assert torch.equal(ours(ids_BS).logits, theirs(ids_BS, use_cache=False).logits)
    loss_of(ours, ids_BS).backward()
    theirs(input_ids=ids_BS, labels=ids_BS, use_cache=False).loss.backward()
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    assert all(a == b and torch.equal(p.grad, q.grad) for (a, p), (b, q) in pairs)


def encoder_matrix(encoder):
    """The dense matrix (L, D) that an encoder stands for."""
    if hasattr(encoder, "down"):
        return encoder.weight @ encoder.down.weight
    if hasattr(encoder, "query"):
        first_HD, second_HD = (
            keys_HE @ half_ED
            for keys_HE, half_ED in zip(encoder.keys, encoder.query.weight.chunk(2), strict=True)
        )
        return torch.stack([one_D + other_D for one_D in first_HD for other_D in second_HD])
    if hasattr(encoder, "left"):
        return torch.kron(encoder.left, encoder.right)
    return encoder.weight


def naive_mlp(mlp, x_D):
    """One token through a sparse feedforward, in plain Python over the latents."""
    encoder, decoder = mlp.encoder, mlp.decoder
    rows = zip(encoder_matrix(encoder), encoder.bias, strict=True)
    acts = [max(0.0, float(w_D @ x_D + b)) for w_D, b in rows]
    if encoder.selection == "groupmax":
        size = len(acts) // encoder.k
        groups = [range(g * size, (g + 1) * size) for g in range(encoder.k)]
        chosen = [max(group, key=acts.__getitem__) for group in groups]
    else:
        chosen = sorted(range(len(acts)), key=lambda latent: -acts[latent])[: encoder.k]
    y = sum(acts[latent] * decoder.weight[latent] for latent in chosen)
    return (decoder.up(y) if decoder.up is not None else y) + decoder.bias


@pytest.mark.parametrize("mlp", SPARSE)
def test_feedforward_equals_a_loop(mlp):
    module = build(mlp).gpt_neox.layers[0].mlp
    torch.nn.init.normal_(module.encoder.bias)
    torch.nn.init.normal_(module.decoder.bias)
    x_BSD = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torch.stack([naive_mlp(module, x) for x in x_BSD.flatten(0, 1)])
        torch.testing.assert_close(module(x_BSD).flatten(0, 1), expected)


@pytest.mark.parametrize("mlp", SPARSE)
def test_latents_are_read_by_a_hook_and_decode_to_the_output(mlp):
    model = build(mlp)
    seen = {}
    feedforward = model.gpt_neox.layers[1].mlp
    feedforward.encoder.register_forward_hook(lambda *call: seen.update(latents=call[2]))
    feedforward.register_forward_hook(lambda *call: seen.update(output=call[2]))
    with torch.no_grad():
        model(tokens(rows=2, length=5))
        acts_BSK, indices_BSK = seen["latents"]
        assert acts_BSK.shape == indices_BSK.shape == (2, 5, SMALL.k)
        assert indices_BSK.dtype == torch.int64
        assert acts_BSK.min() >= 0
        assert int(indices_BSK.max()) < SMALL.num_latents
        assert all(len(set(row.tolist())) == SMALL.k for row in indices_BSK.flatten(0, 1))
        assert torch.equal(feedforward.decoder(acts_BSK, indices_BSK), seen["output"])


@pytest.mark.parametrize("mlp", MLPS)
def test_save_and_load(mlp, tmp_path: Path):
    model = build(mlp)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = load(tmp_path)
    assert not loaded.training
    ids_BS = tokens()
    assert torch.equal(model(ids_BS).logits, loaded(ids_BS).logits)
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is type(model)
    base = AutoModel.from_pretrained(tmp_path)
    assert isinstance(base, SparseGPTNeoXModel)
    assert torch.equal(base(ids_BS).last_hidden_state, model.gpt_neox(ids_BS).last_hidden_state)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, SparseGPTNeoXConfig)
    sizes = SMALL.own_sizes(mlp)
    assert config.mlp == mlp
    assert {key: getattr(config, key) for key in sizes} == sizes


def test_loading_refuses_what_is_not_whole(tmp_path: Path):
    with pytest.raises(UserError, match="holds no model"):
        load(tmp_path / "nowhere")
    build("sparse").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path)
    weights.write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lacks gpt_neox\.layers\.2"):
        load(tmp_path)


@pytest.mark.parametrize("mlp", MLPS)
def test_generate_with_and_without_cache(mlp):
    model = build(mlp)
    prompt = tokens(rows=2, length=4)
    options = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8}
    assert model.generation_config.use_cache
    cached = model.generate(prompt, **options)
    assert torch.equal(cached, model.generate(prompt, **options, use_cache=False))
    ids = prompt
    for _ in range(8):
        logits = model(ids).logits[:, -1]
        logits[:, 2] = -torch.inf  # eos is held back by min_new_tokens
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(cached, ids)


@pytest.mark.parametrize("mlp", MLPS)
@pytest.mark.parametrize("parallel", [False, True])
def test_gradient_checkpointing_changes_no_gradient(mlp, parallel):
    ids_BS = tokens()
    gradients = []
    for checkpointing in (False, True):
        model = build(mlp, parallel_residual=parallel).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        loss_of(model, ids_BS).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) and a.any() for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("mlp", MLPS)
def test_residual_styles(mlp):
    """The parallel style feeds the layer's input to the feedforward, the other one's its sum."""
    for parallel in (False, True):
        model = build(mlp, parallel_residual=parallel)
        layer = model.gpt_neox.layers[0]
        seen = {}
        layer.attention.register_forward_hook(lambda *call, s=seen: s.update(attention=call[2][0]))
        layer.mlp.register_forward_hook(lambda *call, s=seen: s.update(mlp=call[1:]))
        layer.register_forward_hook(lambda *call, s=seen: s.update(layer=call[1:]))
        with torch.no_grad():
            model(tokens(rows=1, length=6))
            (x,), out = seen["layer"]
            (mlp_in,), mlp_out = seen["mlp"]
            after = x + seen["attention"]
            torch.testing.assert_close(
                mlp_in, layer.post_attention_layernorm(x if parallel else after)
            )
            torch.testing.assert_close(out, after + mlp_out)


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
@pytest.mark.parametrize("training", [False, True])
def test_positions_that_restart_keep_documents_apart(mlp, training):
    """Rows of two documents each, cut at other places: none reads the other one."""
    model = build(mlp).train(training)
    ids_BS = tokens(rows=2, length=10)
    cuts = (4, 7)
    position_ids = torch.stack(
        [torch.cat([torch.arange(cut), torch.arange(10 - cut)]) for cut in cuts]
    )
    logits = model(ids_BS, position_ids=position_ids).logits
    for row, cut in enumerate(cuts):
        changed = ids_BS.clone()
        changed[row, :cut] = (changed[row, :cut] + 7) % VOCAB
        again = model(changed, position_ids=position_ids).logits
        assert torch.equal(again[row, cut:], logits[row, cut:])
        assert not torch.allclose(again[row, :cut], logits[row, :cut])
        # Each document alone gives the same as in its row.
        for part in (slice(0, cut), slice(cut, None)):
            alone = model(ids_BS[row : row + 1, part]).logits[0]
            torch.testing.assert_close(alone, logits[row, part])
    across = model(ids_BS).logits
    assert not torch.allclose(across[0, cuts[0] :], logits[0, cuts[0] :])


def test_seeded_initialisation():
    state = torch.get_rng_state()
    first, again = build("sparse", seed=1).state_dict(), build("sparse", seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)
    other = build("sparse", seed=2).state_dict()
    name = "gpt_neox.layers.0.mlp.encoder.weight"
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("mlp", MLPS[1:])
def test_twins_share_all_but_the_feedforward(mlp):
    dense, other = build("dense").state_dict(), build(mlp).state_dict()
    shared = {name for name in dense if ".mlp." not in name}
    assert shared == {name for name in other if ".mlp." not in name}
    assert all(torch.equal(dense[name], other[name]) for name in shared)


@pytest.mark.parametrize("mlp", SPARSE)
def test_initial_scales(mlp):
    """At the default widths: pre-activations of layer-normalised inputs have unit variance, and
    the output is of the size of a dense feedforward's."""
    changes = {"hidden_size": 64, "num_layers": 8, "expansion": 16, "k": 8, "init_std": 0.02}
    changes["rank_ratio"] = 8
    feedforward = build(mlp, **changes).gpt_neox.layers[0].mlp
    encoder = feedforward.encoder
    x_ND = torch.randn(512, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        pre_NL = x_ND @ encoder_matrix(encoder).T + encoder.bias
        torch.testing.assert_close(encoder.products(x_ND), pre_NL)
        dense = build("dense", **changes).gpt_neox.layers[0].mlp(x_ND).std().item()
        sparse = feedforward(x_ND).std().item()
    # Weights factored through 8 dimensions vary more from draw to draw.
    assert pre_NL.std().item() == pytest.approx(1, abs=0.15)
    assert dense / 2 < sparse < dense * 2


def test_zero_unembedding_starts_at_the_uniform_distribution():
    model = build("sparse", zero_unembedding=True)
    assert loss_of(model, tokens()).item() == pytest.approx(torch.tensor(VOCAB).log().item())
    assert build("sparse").lm_head.weight.any()


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(Exception, match="no multiple of k"):
        SparseGPTNeoXConfig(hidden_size=16, num_attention_heads=2, num_latents=30, k=4)
    with pytest.raises(Exception, match="between 1 and num_latents"):
        SparseGPTNeoXConfig(hidden_size=16, num_attention_heads=2, num_latents=30, k=0)
    with pytest.raises(Exception, match="no square"):
        SparseGPTNeoXConfig(mlp="sparse_product_key", num_latents=1000)


@pytest.mark.parametrize("mlp", SPARSE)
def test_gradients_are_those_of_the_dense_computation(mlp):
    """Of every parameter and the input, against autograd through all latents."""
    module = build(mlp).gpt_neox.layers[0].mlp.double()
    torch.nn.init.normal_(module.encoder.bias)
    x_ND = torch.randn(7, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    target_ND = torch.randn(7, 16, dtype=torch.double, generator=torch.Generator().manual_seed(2))

    def dense(x_ND):
        pre_NL = (x_ND @ encoder_matrix(module.encoder).T + module.encoder.bias).relu()
        _, chosen_NK = module.encoder(x_ND)
        acts_NL = pre_NL * torch.zeros_like(pre_NL).scatter(1, chosen_NK, 1.0)
        y_NW = acts_NL @ module.decoder.weight
        up = module.decoder.up
        return (y_NW if up is None else up(y_NW)) + module.decoder.bias

    gradients = []
    for forward in (module, dense):
        read_ND = x_ND.clone().requires_grad_()
        loss = (forward(read_ND) - target_ND).square().sum()
        gradients.append(torch.autograd.grad(loss, [read_ND, *module.parameters()]))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("changes", [{}, {"hidden_size": 32, "expansion": 8}])
def test_a_wide_dense_model_has_the_parameters_of_the_sparse_one(changes):
    wide, sparse = (build(mlp, **changes).num_parameters() for mlp in ("dense_wide", "sparse"))
    assert wide == sparse
