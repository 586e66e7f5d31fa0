"""Taking over a model of every kind: what is written, what is measured, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import found_tokenizers
import numpy as np
import pytest
import tiny_bases
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from whole_pipeline import ROOT

from clearnets import UserError
from clearnets import config as cfg
from clearnets.config import SPLITS, Pretrained
from clearnets.data.storybook import story
from clearnets.data.tokens import TokenStore, open_tokens
from clearnets.models import pretrained
from clearnets.models.loading import load
from clearnets.models.matching import checkpoint_losses
from clearnets.models.pretrained import KINDS
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import data
from clearnets.training.adopt_pretrained import take_over

CTX, VOCAB, EOS = 16, 30, 5
# As the data stage leaves a tokenizer that has neither: behind the vocabulary.
BOS, PAD = VOCAB, VOCAB + 1


def rows(count: int, seed: int) -> np.ndarray:
    """bos, a document, eos, padding."""
    rng = np.random.default_rng(seed)
    tokens = np.full((count, CTX), PAD)
    for row in tokens:
        end = rng.integers(3, CTX)
        row[:end] = rng.integers(6, VOCAB, end)
        row[0], row[end] = BOS, EOS
    return tokens.astype(np.uint16)


def make_store(root: Path, vocab_size: int = VOCAB + 2, ctx_len: int = CTX) -> TokenStore:
    (root / "tokens").mkdir(parents=True, exist_ok=True)
    np.save(root / "tokens" / "valid.npy", rows(11, 0))
    sizes = {"vocab_size": vocab_size, "ctx_len": ctx_len}
    write_json(root / "meta.json", {**sizes, "pad": PAD, "bos": BOS, "eos": EOS, "concepts": []})
    return open_tokens(root)


def make_base(kind: str, folder: str = "base", **save) -> Path:
    tiny_bases.make(kind, vocab_size=VOCAB, eos=EOS).save_pretrained(folder, **save)
    return Path(folder)


def take(base: Pretrained, store: TokenStore | None = None, out: str = "out") -> dict:
    store = store or make_store(Path("data"))
    cpu = torch.device("cpu")
    return take_over(base, store, out=Path(out), device=cpu, label="test")


def refusal(base: Pretrained, store: TokenStore | None = None) -> str:
    with pytest.raises(UserError) as error:
        take(base, store)
    assert "\n" not in str(error.value)
    assert not Path("out").exists(), "something was written"
    return str(error.value)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_run_of_no_step_with_the_base_s_own_weights(kind):
    folder = make_base(kind)
    summary = take(tiny_bases.settings(folder, kind))
    (step,) = Path("out/checkpoints").iterdir()
    assert step.name == "step-000000"
    for made in (step, Path("out/final")):
        assert (made / "model.safetensors").read_bytes() == (
            folder / "model.safetensors"
        ).read_bytes()
        config = read_json(made / "config.json")
        own = read_json(folder / "config.json")
        assert {key: config[key] for key in own} == own
        assert config["hookpoints"] == KINDS[kind].feedforwards
    original = tiny_bases.make(kind, vocab_size=VOCAB, eos=EOS)
    assert summary["parameters"] == sum(p.numel() for p in original.parameters())
    write_json(Path("out/manifest.json"), {"files": {}})
    assert checkpoint_losses(Path("out")) == {0: summary["valid_loss"]}

    # The loss by hand: eos in the place of bos, one document at a time, without its padding.
    nll, count = 0.0, 0
    for row in rows(11, 0).astype(np.int64):
        ids = torch.from_numpy(row[row != PAD])
        ids[0] = EOS
        with torch.no_grad():
            logits = original(ids[None]).logits[0].log_softmax(-1)
        nll -= logits[:-1].gather(1, ids[1:, None]).sum().item()
        count += len(ids) - 1
    assert summary["valid_loss"] == pytest.approx(nll / count, abs=1e-5)

    # Whoever loads the folder reads the same.
    model = load(step)
    tokens_BS = torch.from_numpy(rows(2, 1).astype(np.int64))
    plain_BS = torch.where(tokens_BS >= VOCAB, EOS, tokens_BS)
    assert torch.equal(model(tokens_BS).logits, original(plain_BS).logits)


def test_sharded_and_half_precision_weights():
    half = tiny_bases.make("llama", vocab_size=VOCAB, eos=EOS).to(torch.bfloat16)  # type: ignore
    half.save_pretrained("base", max_shard_size="4KB")
    take(tiny_bases.settings("base"))
    step = Path("out/checkpoints/step-000000")
    shards = sorted(path.name for path in step.glob("*.safetensors"))
    assert len(shards) > 1
    assert (step / "model.safetensors.index.json").exists()
    assert load(step).dtype == torch.float32
    assert {t.dtype for t in load_file(step / shards[0]).values()} == {torch.bfloat16}


def test_the_model_s_own_bos_is_read_as_it_is():
    tiny_bases.make("llama", vocab_size=VOCAB + 2, eos=EOS, bos=BOS).save_pretrained("base")
    take(tiny_bases.settings("base"))
    assert read_json(Path("out/final/config.json"))["token_aliases"] == {}


def test_sizes_that_differ_are_listed_in_one_line():
    make_base("gpt2")
    wrong = tiny_bases.settings("base", "gpt2", hidden_size=32, num_layers=2)
    said = refusal(wrong)
    assert said.endswith("set model.hidden_size to 16, model.num_layers to 3")


@pytest.mark.parametrize("model_type", ["bert", "phi3", None])
def test_an_unknown_kind_lists_the_kinds(model_type):
    config = make_base("gpt2") / "config.json"
    values = {**read_json(config), "model_type": model_type}
    values["auto_map"] = {"AutoModelForCausalLM": "code.Model"}
    config.write_text(json.dumps(values))
    said = refusal(tiny_bases.settings("base", "gpt2"))
    assert f"unknown kind {model_type!r}; there are: GPT-NeoX (gpt_neox), GPT-Neo (gpt_neo)" in said
    assert all(kind.name in said for kind in KINDS.values())


def test_a_vocabulary_larger_than_the_model_s():
    make_base("gpt_neo")
    said = refusal(tiny_bases.settings("base", "gpt_neo"), make_store(Path("data"), VOCAB + 40))
    assert f"a vocabulary of {VOCAB} tokens" in said
    assert "data.tokenizer" in said


def test_a_context_longer_than_the_model_s():
    make_base("gpt2")
    said = refusal(tiny_bases.settings("base", "gpt2"), make_store(Path("data"), ctx_len=96))
    assert "reads 64 tokens at most and data.ctx_len is 96" in said


def test_pickles_are_never_read():
    folder = make_base("gpt2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "as a pickle (pytorch_model.bin), which is never read" in refusal(
        tiny_bases.settings("base", "gpt2")
    )
    (folder / "pytorch_model.bin").unlink()
    assert "holds no model.safetensors" in refusal(tiny_bases.settings("base", "gpt2"))


def test_damaged_weights_and_a_config_of_another_model():
    folder = make_base("gpt2")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    assert "damaged" in refusal(tiny_bases.settings("base", "gpt2"))
    (folder / "model.safetensors").write_bytes(whole)
    shutil.copyfile(make_base("llama", "other") / "config.json", folder / "config.json")
    assert "lacks" in refusal(tiny_bases.settings("base"))
    values = {**read_json(folder / "config.json"), "hidden_size": "wide"}
    (folder / "config.json").write_text(json.dumps(values))
    assert "cannot be loaded" in refusal(tiny_bases.settings("base"))


def test_the_loss_of_open_ended_text_is_that_of_stories_from_their_beginning():
    """No eos is predicted, and nothing that stands behind a bos in the middle of a story."""
    found_tokenizers.llama(Path("tokenizer"))
    tokenizer = {"kind": "pretrained", "name": "tokenizer", "open_ended": True}
    tokens = {**dict.fromkeys(SPLITS, 600), "valid": 4000}
    over = {"data": {"tokenizer": tokenizer, "ctx_len": 64, "tokens": tokens}}
    text = cfg.parse(cfg.overlay(cfg.read_yaml(ROOT / "params.yaml"), over), "test")
    data.run(text, runtime=Runtime(device="cpu"))
    store = open_tokens(paths.data())
    model = tiny_bases.make("llama", vocab_size=store.vocab_size, eos=store.eos, bos=store.bos)
    model.save_pretrained("base")
    summary = take(tiny_bases.settings("base", "llama", read_layers=(0, 2)), store)
    assert read_json(Path("out/final/config.json"))["read_layers"] == [0, 2]

    own = AutoTokenizer.from_pretrained("tokenizer")
    nll, count = 0.0, 0
    for index in range(len(store.split("valid"))):
        ids = own(story(0, "valid", index).text, add_special_tokens=False).input_ids
        assert len(ids) > 64, "the story is cut"
        row = torch.tensor([[store.bos, *ids][:64]])
        assert store.split("valid")[index].tolist() == row[0].tolist()
        nll += 63 * model(row, labels=row).loss.item()
        count += 63
    assert count > 300
    assert summary["valid_loss"] == pytest.approx(nll / count, abs=1e-5)


def test_weights_of_other_shapes():
    folder = make_base("gpt2")
    values = {**read_json(folder / "config.json"), "n_inner": 48}
    (folder / "config.json").write_text(json.dumps(values))
    assert "cannot be loaded" in refusal(tiny_bases.settings("base", "gpt2"))


def test_an_index_that_points_elsewhere():
    folder = make_base("gpt2", max_shard_size="4KB")
    index = folder / "model.safetensors.index.json"
    values = read_json(index)
    values["weight_map"] = dict.fromkeys(values["weight_map"], "../other/model.safetensors")
    index.write_text(json.dumps(values))
    assert "not a file beside it" in refusal(tiny_bases.settings("base", "gpt2"))


def test_identity_follows_the_files():
    folder = make_base("gpt2")
    base = tiny_bases.settings("base", "gpt2")
    before = pretrained.identity(base)
    assert set(before) == {"config.json", "model.safetensors"}
    (folder / "README.md").write_text("nothing that is read")
    assert pretrained.identity(base) == before
    values = {**read_json(folder / "config.json"), "layer_norm_epsilon": 0.1}
    (folder / "config.json").write_text(json.dumps(values))
    assert pretrained.identity(base)["config.json"] != before["config.json"]
    recorded = base.model_copy(update={"fingerprint": "0" * 16})
    with pytest.raises(UserError, match="has changed since it was recorded; run `clearnets exp x`"):
        pretrained.checked_identity(recorded, "x")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("/nowhere", "no such folder"),
        ("someone/model", "the hub is out of reach"),
    ],
)
def test_names_that_are_neither_folder_nor_to_be_had(name, says, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=says) as error:
        pretrained.locate(tiny_bases.settings(name))
    assert "\n" not in str(error.value)


def test_a_folder_has_no_revision():
    make_base("gpt2")
    with pytest.raises(UserError, match=r"remove model\.revision"):
        pretrained.locate(tiny_bases.settings("base", "gpt2", revision="main"))


@pytest.mark.parametrize("revision", [None, "refs/pr/1"])
def test_a_model_in_the_hub_s_cache(revision, monkeypatch):
    """The cache as huggingface_hub lays it out, read without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("cache").resolve()))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = Path("cache/models--someone--model")
    folder = make_base("gpt2", str(repo / "snapshots" / commit))
    ref = repo / "refs" / (revision or "main")
    ref.parent.mkdir(parents=True)
    ref.write_text(commit)
    base = tiny_bases.settings("someone/model", "gpt2", revision=revision)
    assert pretrained.identity(base) == {"commit": commit}
    assert pretrained.locate(base)["model.safetensors"].parent.name == commit
    take(base)
    model = (folder / "model.safetensors").read_bytes()
    assert Path("out/final/model.safetensors").read_bytes() == model
    pinned = base.model_copy(update={"revision": "f" * 40})
    assert pretrained.identity(pinned) == {"commit": "f" * 40}
