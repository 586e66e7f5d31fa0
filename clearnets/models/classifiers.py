"""Classifiers of pictures: transformers' ViT, SwinV2 and ConvNeXtV2, from untrained weights.

Each is called with `pixel_values` (B, C, H, W) and gives an output with `logits` (B, classes).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    PreTrainedModel,
    Swinv2Config,
    Swinv2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from clearnets import UserError
from clearnets.config import AnyClassifier, ConvNeXtV2, SparseFeedforward, SwinV2, ViT
from clearnets.models.sparse_gptneox import (
    SparseGPTNeoXConfig,
    SparseGPTNeoXPreTrainedModel,
    SparseMLP,
)


def build_classifier(
    settings: AnyClassifier, *, shape: tuple[int, int, int], classes: int, seed: int
) -> PreTrainedModel:
    """Return an untrained classifier in float32. The weights depend on nothing but the arguments.

    Args:
        shape: channels, rows and columns of the pictures.
        classes: how many there are.

    Raises:
        UserError: the model cannot read pictures of this shape.
    """
    channels, side, width = shape
    if side != width:
        raise UserError(f"pictures of {side} by {width} pixels are not square; crop them")
    _check_patches(settings, side)
    reads: dict[str, Any] = {"num_channels": channels, "image_size": side, "num_labels": classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(settings, ViT):
            return _vit(settings, reads)
        if isinstance(settings, SwinV2):
            return _swin(settings, reads)
        return _convnext(settings, reads)


def hookpoints(model: PreTrainedModel) -> list[str]:
    """Return the modules, relative to the base model, whose output attention and feedforward of
    each layer add to the residual stream: a picture per row, the width as last axis.

    ConvNeXtV2 has no attention; a layer of it adds one thing. SwinV2 adds what its norms give: its
    attention itself works on windows, padded where they stand over the edge.
    """
    found = {
        "vit": (".attention.o_proj", ".mlp"),
        "swinv2": (".layernorm_before", ".layernorm_after"),
        "convnextv2": (".pwconv2",),
    }[model.config.model_type]
    layers = [name for name, module in model.base_model.named_modules() if _is_layer(module)]
    return [layer + end for layer in layers for end in found]


def latents(model: PreTrainedModel) -> list[str]:
    """Return the modules, relative to the base model, that output the latents of feedforwards that
    are sparse by construction: values and indices (B, S, k); none where they are dense."""
    modules = model.base_model.named_modules()
    return [f"{name}.encoder" for name, module in modules if isinstance(module, SparseMLP)]


def _is_layer(module: nn.Module) -> bool:
    return type(module).__name__ in ("ViTLayer", "Swinv2Layer", "ConvNextV2Layer")


def _check_patches(settings: AnyClassifier, side: int) -> None:
    stages = 1 if isinstance(settings, ViT) else len(settings.depths)
    patches, rest = divmod(side, settings.patch_size)
    # ConvNeXtV2's kernels and SwinV2's padding take any number, but lose what is over.
    if rest or not patches:
        raise UserError(
            f"a patch_size of {settings.patch_size} does not divide pictures of {side} pixels; "
            "set another"
        )
    if patches < 2 ** (stages - 1):
        raise UserError(
            f"{patches} patches along a side cannot be halved in {stages} stages; set a smaller "
            "patch_size or fewer stages"
        )


def _vit(settings: ViT, reads: dict[str, Any]) -> PreTrainedModel:
    config = ViTConfig(
        **reads,
        patch_size=settings.patch_size,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        intermediate_size=settings.hidden_size * settings.mlp_ratio,
    )
    model = ViTForImageClassification(config)
    if isinstance(settings.feedforward, SparseFeedforward):
        for layer, mlp in zip(model.vit.layers, _sparse(settings, settings.feedforward)):
            layer.mlp = mlp
    return model


def _sparse(settings: ViT, feedforward: SparseFeedforward) -> list[SparseMLP]:
    """Return sparse feedforwards for all layers, initialised as those of the sparse GPT-NeoX."""
    config = SparseGPTNeoXConfig(
        mlp="sparse",
        num_attention_heads=settings.num_heads,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_latents=settings.hidden_size * feedforward.expansion,
        k=feedforward.k,
    )
    init = SparseGPTNeoXPreTrainedModel(config)._init_weights
    return [SparseMLP(config).apply(init) for _ in range(settings.num_layers)]


def _swin(settings: SwinV2, reads: dict[str, Any]) -> PreTrainedModel:
    config = Swinv2Config(
        **reads,
        patch_size=settings.patch_size,
        embed_dim=settings.embed_dim,
        depths=settings.depths,
        num_heads=settings.num_heads,
        window_size=settings.window_size,
        mlp_ratio=float(settings.mlp_ratio),
        drop_path_rate=settings.drop_path,
    )
    return Swinv2ForImageClassification(config)


def _convnext(settings: ConvNeXtV2, reads: dict[str, Any]) -> PreTrainedModel:
    config = ConvNextV2Config(
        **reads,
        patch_size=settings.patch_size,
        hidden_sizes=settings.hidden_sizes,
        depths=settings.depths,
        num_stages=len(settings.depths),
        drop_path_rate=settings.drop_path,
        layer_norm_eps=1e-6,
    )
    return ConvNextV2ForImageClassification(config)
