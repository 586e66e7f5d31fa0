"""Write the overlay of an experiment on a pretrained base, with what can be read off the base."""

from __future__ import annotations

from clearnets import UserError
from clearnets import config as cfg
from clearnets.config import Pretrained
from clearnets.models import budget
from clearnets.models.pretrained import kind_of
from clearnets.pipeline.artifacts import write_text

READ = 4
"""Layers that are read, evenly spaced over the model's depth."""
EXPANSION, K, CTX_LEN, WINDOW = 8, 32, 128, 32

TEMPLATE = """\
# Coders of {layers} layers of {base}, on the embedded stories.
experiment: {name}
models: [dense]
families: [transcoder, skip-transcoder, sae, neurons, random-transcoder, random-sae]
skip: [overlap, intervene, circuits, stability, planted, sample]
data:
  # corpus: {{kind: local, path: FILE}}   # text of your own, without labels of concepts
  tokenizer: {{kind: pretrained, name: {base}, open_ended: true}}
  ctx_len: {ctx_len}
  tokens:
    train: 200000
    valid: 10000
    explain: 60000
    score: 60000
    concept_fit: 40000
    concept_test: 40000
model:
  kind: pretrained
  name: {base}
  hookpoints: {hookpoints}
  read_layers: {read_layers}
  hidden_size: {hidden_size}
  num_layers: {num_layers}
  expansion: {expansion}   # {num_latents:,} latents in each layer
  k: {k}
  attention: across
coders:
  # existing: {{sae: {{name: FOLDER}}}}   # coders that others trained with sparsify
  tokens: 150000
  learning_rate: {rate:.1g}
execute:
  families: [transcoder, skip-transcoder, sae, neurons]
  fit_rows: 200
  rows: 32
generalize:
  tasks: []
"""


def write(name: str, base: str) -> str:
    """Write `experiments/NAME.yaml` for a base, a folder or a hub id; return its path.

    Raises:
        UserError: there is such an experiment, or the base cannot be one.
    """
    path = cfg.EXPERIMENTS / f"{name}.yaml"
    if path.exists():
        raise UserError(f"{path} is there already; choose another name, or edit it")
    settings = Pretrained.model_validate(
        {
            "kind": "pretrained",
            "name": base,
            "hookpoints": "layers.*.mlp",
            "attention": "across",
            **dict.fromkeys(("hidden_size", "num_layers", "expansion", "k"), 1),
        }
    )
    config = budget.completed_config(settings)
    width, depth = config.hidden_size, config.num_hidden_layers
    read = sorted({depth * (2 * place + 1) // (2 * READ) for place in range(READ)})
    longest = getattr(config, "max_position_embeddings", CTX_LEN)
    content = TEMPLATE.format(
        name=name,
        base=base,
        layers=len(read),
        ctx_len=min(CTX_LEN, longest // WINDOW * WINDOW),
        hookpoints=kind_of(config.model_type).feedforwards,
        read_layers=read,
        hidden_size=width,
        num_layers=depth,
        expansion=EXPANSION,
        num_latents=EXPANSION * width,
        k=min(K, width),
        # As the default's by the square root of the width: the size of a first weight.
        rate=0.01 * (64 / width) ** 0.5,
    )
    cfg.parse(cfg.overlay(cfg.read_yaml(cfg.PARAMS), cfg.parse_yaml(content, str(path))), str(path))
    path.parent.mkdir(exist_ok=True)
    write_text(path, content)
    return str(path)
