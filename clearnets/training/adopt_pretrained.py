"""Adopt a model that others trained, a dense one or its sparse twin, in place of training one.

The result is laid out as a training run of no step, so that every later stage works on it: one
checkpoint, the base's own files beside a config that also says what is read of it (`hookpoints`,
`read_layers`) and which tokens it reads as others (`token_aliases`).

Shapes: B rows of a batch, S positions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedModel

from clearnets import UserError
from clearnets.config import Pretrained
from clearnets.data.tokens import TokenStore
from clearnets.models import hookpoints, pretrained
from clearnets.models.loading import alias_tokens, load, silence
from clearnets.models.sparse_gptneox import initialized
from clearnets.pipeline.artifacts import write_json, write_text
from clearnets.pipeline.progress import progress
from clearnets.training.language import Collator, row_nll, summary_of

BATCH_ROWS = 32
"""Rows per forward pass, at most; changes no number beyond rounding."""


def take_over(
    settings: Pretrained,
    tokens: TokenStore,
    *,
    out: Path,
    device: torch.device,
    label: str,
    mlp: str = "dense",
) -> dict[str, Any]:
    """Check a model against its settings and the text, write it to `out` and measure its loss.

    Writes what `language.train` does: `final/`, `checkpoints/step-000000/`, `curve.csv` with one
    row and `summary.json`.

    Args:
        settings: of the dense model and, where it is named, its sparse twin.
        tokens: the text.
        out: an empty folder.
        device: where the loss is measured.
        label: of the progress bar.
        mlp: which of the two.

    Returns:
        The values of `summary.json`.

    Raises:
        UserError: the base cannot be had, is of an unknown kind, does not have the sizes of its
            settings, or does not go with the text; nothing is written.
    """
    base = settings.member(mlp)
    values = pretrained.read_config(base)
    files = pretrained.locate(base)
    model = _load(base, files)
    _check_sizes(settings, model, tokens, mlp)
    noted = {
        "hookpoints": settings.relative_hookpoints,
        **({"read_layers": list(settings.layers)} if settings.read_layers else {}),
        "token_aliases": _aliases(base, model, tokens),
    }
    model.config.update(noted)
    alias_tokens(model)
    model.to(device)  # pyright: ignore[reportArgumentType]
    first_BS = np.asarray(tokens.split("valid")[:2, :8])
    probe_BS = torch.from_numpy(first_BS.astype(np.int64)).to(device)
    hookpoints.check(model, probe_BS)

    loss = round(valid_loss(model, tokens, label=label), 6)
    summary = summary_of(model, steps=0, tokens=0, train_loss=None, valid_loss=loss)
    checkpoint = out / "checkpoints" / "step-000000"
    checkpoint.mkdir(parents=True)
    for name in set(files) - {pretrained.CONFIG}:
        shutil.copyfile(files[name], checkpoint / name)
    write_json(checkpoint / pretrained.CONFIG, values | noted)
    _link(checkpoint, out / "final")
    write_text(out / "curve.csv", f"step,tokens,train_loss,valid_loss\n0,0,,{loss:.6f}\n")
    write_json(out / "summary.json", summary)
    return summary


def add_untrained(taken: Path, out: Path, seed: int) -> None:
    """Write a model with the config of the sparse one in `taken` and untrained weights.

    They are those that training here would start from; those of the model itself are not known.
    """
    config: Any = AutoConfig.from_pretrained(taken, local_files_only=True)
    with silence():
        initialized(config, seed).save_pretrained(out)


def _load(base: pretrained.Base, files: Mapping[str, Path]) -> PreTrainedModel:
    cure = "name a folder that transformers saved"
    try:
        return load(files[pretrained.CONFIG].parent, cure)
    except (
        *(ValueError, RuntimeError, OSError, KeyError, TypeError, ZeroDivisionError),
        StrictDataclassError,
    ) as error:
        # transformers' words for a config that it refuses, and for weights of other shapes.
        reason = " ".join(str(error).split())
        raise UserError(f"{base.name} cannot be loaded ({reason:.200}); {cure}") from None


def _check_sizes(settings: Pretrained, model: Any, tokens: TokenStore, mlp: str) -> None:
    """Refuse sizes that differ from the settings, and text that the model cannot read."""
    base = settings.member(mlp)
    pretrained.check_completed(settings, model.config, mlp)
    positions = getattr(model.config, "max_position_embeddings", tokens.ctx_len)
    if tokens.ctx_len > positions:
        raise UserError(
            f"{base.name} reads {positions} tokens at most and data.ctx_len is {tokens.ctx_len}; "
            "lower data.ctx_len"
        )
    rows = model.get_input_embeddings().num_embeddings
    largest = max(_text_ids(tokens), default=0)
    if largest >= rows:
        raise UserError(
            f"the tokenizer has the token {largest} and {base.name} a vocabulary of {rows} tokens; "
            "encode the text with the model's own tokenizer (data.tokenizer)"
        )


def _text_ids(tokens: TokenStore) -> set[int]:
    """Return the ids that the text may hold, without bos and pad, which are never predicted."""
    path = tokens.root / "tokenizer" / "tokenizer.json"
    if not path.exists():
        return set(range(tokens.vocab_size)) - {tokens.bos, tokens.pad}
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    return set(vocabulary.values()) - {tokens.bos, tokens.pad}


def _aliases(base: pretrained.Base, model: Any, tokens: TokenStore) -> dict[str, int]:
    """Return the tokens that the model was not trained with, and the eos that it reads instead.

    A bos that is not the model's own was put behind its tokenizer's vocabulary by the data stage.
    Its row of the embedding, where there is one, was never trained, and models without a bos have
    read eos before every document. Padding is read by no token that counts, so it only has to have
    a row.
    """
    aliases = {}
    if tokens.bos != model.config.bos_token_id:
        aliases[str(tokens.bos)] = tokens.eos
    if tokens.pad >= model.get_input_embeddings().num_embeddings:
        aliases[str(tokens.pad)] = tokens.eos
    return aliases


@torch.no_grad()
def valid_loss(model: Any, tokens: TokenStore, *, label: str) -> float:
    """Return the mean loss on `valid` in nats per predicted token, as in training; one document
    per row."""
    collate = Collator(bos=tokens.bos, pad=tokens.pad, within=False)
    rows = np.asarray(tokens.split("valid"))
    # Rows of like length together have little padding.
    rows = rows[np.argsort((rows != tokens.pad).sum(axis=1), kind="stable")]
    nll, count, size = 0.0, 0, tokens.rows_at_once(BATCH_ROWS)
    with progress(label, len(rows), "rows") as bar:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = {name: value.to(model.device) for name, value in collate(part).items()}
            labels_BS = batch.pop("labels")
            logits_BSV = model(**batch, use_cache=False).logits
            nll_B, count_B = row_nll(logits_BSV, labels_BS)
            nll += nll_B.sum().item()
            count += int(count_B.sum())
            bar.advance(len(part))
    if not count:
        raise UserError("the split `valid` holds no tokens; raise data.tokens.valid")
    return nll / count


def _link(source: Path, target: Path) -> None:
    """Hard-link all files of a folder into a new one, or copy them where that is not possible."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)
