"""A GGUF file that is written by hand from a known model, converted, against that model."""

from __future__ import annotations

import json
from pathlib import Path

import found_tokenizers
import pytest
import tiny_bases
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from clearnets import UserError
from clearnets.cli import app
from clearnets.models import gguf

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def llamas_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The two halves of a head's dimensions side by side, as llama.cpp rotates them."""
    whole, width = weight.shape
    return weight.view(heads, 2, whole // heads // 2, width).transpose(1, 2).reshape(whole, width)


def write(path: Path, model, tokenizer) -> None:
    library = pytest.importorskip("gguf")
    config, writer = model.config, library.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    content = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(content["vocab"], key=content["vocab"].get))
    writer.add_token_merges([" ".join(pair) for pair in content["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in model.state_dict().items():
        if name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            there = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
            out = there.get(name.removesuffix(".weight"), "output")
        else:
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            out = f"blk.{layer}.{NAMES[part]}"
            heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                tensor = llamas_order(tensor, heads[part[10]])
        writer.add_tensor(f"{out}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_file_predicts_what_the_model_did(tmp_path):
    found = AutoTokenizer.from_pretrained(found_tokenizers.gpt2(tmp_path / "tokenizer"))
    model = tiny_bases.make("llama", vocab_size=len(found), eos=0, bos=0)
    write(tmp_path / "model.gguf", model, found)
    out = tmp_path / "converted"
    done = CliRunner().invoke(app, ["import", str(tmp_path / "model.gguf"), str(out)])
    assert done.exit_code == 0, done.exception
    assert f"llama, dense, {model.num_parameters():,} parameters" in done.output

    values = json.loads((out / "config.json").read_text())
    assert values["converted_from"] == "model.gguf"
    assert "quantization_config" not in values
    converted = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    text = found_tokenizers.TEXTS[0]
    ids = found(text, add_special_tokens=False, return_tensors="pt").input_ids
    own = AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert own(text, add_special_tokens=False).input_ids == ids[0].tolist()
    torch.testing.assert_close(converted(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_files_that_cannot_be_converted(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.gguf; name a GGUF file"):
        gguf.run(tmp_path / "none.gguf", tmp_path / "out")
    pytest.importorskip("gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"transformers cannot read .*broken\.gguf") as error:
        gguf.run(tmp_path / "broken.gguf", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, ["import", "package:no_such", "out", "--set", "k=1"])
    assert "remove --set" in str(done.exception)
