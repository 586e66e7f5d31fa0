"""Tensors of a checkpoint without torch, and the order of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clearnets import UserError
from clearnets.latents.lens import Checkpoint, extremes
from clearnets.pipeline.artifacts import write_json


def checkpoint(folder, dtype: torch.dtype, **tensors: torch.Tensor) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", {"model_type": "llama"})
    save_file({name: t.to(dtype) for name, t in tensors.items()}, folder / "model.safetensors")
    return Checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_is_read_as_torch_reads_it(tmp_path, dtype):
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7), "c": 1e30 * torch.randn(2, 2, 2)}
    found = checkpoint(tmp_path / "model", dtype, **tensors)
    for name, tensor in tensors.items():
        expected = tensor.to(dtype).float().numpy()
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], expected)


def test_a_norm_that_only_scales_leaves_the_mean_in(tmp_path):
    gain, unembedding = torch.rand(4), torch.randn(6, 4)
    tensors = {"model.norm.weight": gain, "model.embed_tokens.weight": unembedding}
    lens_VD = checkpoint(tmp_path / "model", torch.float32, **tensors).lens()
    x_D = torch.randn(4)
    assert lens_VD @ x_D.numpy() == pytest.approx((unembedding @ (gain * x_D)).numpy(), abs=1e-5)


def test_a_missing_tensor_and_a_broken_file_are_one_line(tmp_path):
    found = checkpoint(tmp_path / "model", torch.float32, a=torch.ones(1))
    with pytest.raises(UserError, match="holds no b; "):
        found["b"]
    (tmp_path / "model/model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is not readable"):
        Checkpoint(tmp_path / "model")


def test_extremes_are_those_of_a_sort_and_ties_go_to_the_first_token():
    logit_V = np.array([0.5, -2, 3, 3, -2, 0], dtype=np.float32)
    assert extremes(logit_V, 3) == ([2, 3, 0], [1, 4, 5])
