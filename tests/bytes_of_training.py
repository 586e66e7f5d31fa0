"""Print hashes of the weights of two small transformers, dense and sparse, after 60 steps."""

from __future__ import annotations

import hashlib
import json

import clearnets  # noqa: F401  # isort: skip - before numpy and torch
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Attention and a feedforward: dense GELU, or the maxima of groups of latents."""

    def __init__(self, width: int, sparse: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.sparse = sparse
        hidden = 16 * width if sparse else 4 * width
        self.up = nn.Linear(width, hidden)
        self.down = nn.Parameter(torch.randn(hidden, width) / hidden**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, s, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(b, s, d))
        h = self.up(self.norm2(x))
        if not self.sparse:
            return x + F.gelu(h) @ self.down
        values, within = h.view(b * s, 8, -1).max(-1)
        index = within + torch.arange(0, h.shape[-1], h.shape[-1] // 8)
        y = F.embedding_bag(index, self.down, per_sample_weights=values.relu(), mode="sum")
        return x + y.view(b, s, d)


def trained(sparse: bool, steps: int = 60) -> str:
    torch.manual_seed(0)
    vocab, width, layers = 1536, 64, 8
    embed = nn.Embedding(vocab, width)
    blocks = nn.Sequential(*(Block(width, sparse) for _ in range(layers)), nn.LayerNorm(width))
    parameters = [*embed.parameters(), *blocks.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        tokens = torch.from_numpy(rng.zipf(1.3, (8, 129)).clip(max=vocab - 1))
        logits = blocks(embed(tokens[:, :-1])) @ embed.weight.T
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    data = b"".join(p.detach().numpy().tobytes() for p in parameters)
    return hashlib.sha256(data).hexdigest()[:12]


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    print(json.dumps({"dense": trained(False), "sparse": trained(True)}))
