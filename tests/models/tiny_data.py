"""A data unit of a small language, for comparisons of models that are not trained here."""

from __future__ import annotations

import numpy as np
import synthetic_text as synthetic
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_json

VOCAB = len(synthetic.STRINGS)
LATENTS = 10
SPLITS = {"train": 40, "valid": 9, "explain": 60, "score": 60}


def make_data() -> None:
    for _, work in build_all([Unit("data", paths.data(), {}, {})]):
        (work.out / "tokenizer").mkdir()
        vocab = {string: token for token, string in enumerate(synthetic.STRINGS)}
        Tokenizer(WordLevel(vocab, unk_token="<pad>")).save(
            str(work.out / "tokenizer" / "tokenizer.json")
        )
        special = {"pad": synthetic.PAD, "bos": synthetic.BOS, "eos": synthetic.EOS}
        sizes = {"vocab_size": VOCAB, "ctx_len": synthetic.CTX}
        write_json(work.out / "meta.json", {**sizes, **special, "concepts": []})
        write_json(work.out / "stats.json", {"unigram": 3.1, "bigram": 3.0, "trigram": 2.9})
        (work.out / "tokens").mkdir()
        for seed, (split, count) in enumerate(SPLITS.items()):
            np.save(work.out / "tokens" / f"{split}.npy", synthetic.rows(seed, count))
