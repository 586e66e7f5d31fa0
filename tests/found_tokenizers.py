"""Tokenizers of the kinds that are found on the hub, made small and saved as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXTS = [
    'Once there was a little fox named Max. "Where is the red ball?" asked Max.',
    "The fox ran to the river. The river was cold, but the fox was brave.",
    "Anna's café had 12 naïve 🦊 guests.\n\nThey said: “Yes!”",
] * 4
END = "<|endoftext|>"


def _save(tokenizer: Any, folder: Path, **named: str) -> Path:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return folder


def gpt2(folder: Path, *, vocab_size: int = 420, split: bool = False) -> Path:
    """Byte-level BPE, one special token for everything; with `split`, as of Llama 3 and Qwen."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, trainers
    from tokenizers import pre_tokenizers as pre

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=split)
    if split:
        words = pre.Split(Regex(r" ?\p{L}+|\p{N}{1,3}|[^\p{L}\p{N}]+"), "isolated")
        tokenizer.pre_tokenizer = pre.Sequence([words, pre.ByteLevel(use_regex=False)])
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _save(tokenizer, folder, bos_token=END, eos_token=END, unk_token=END)


def llama(folder: Path) -> Path:
    """BPE on characters with byte fallback, `▁` for spaces, bos and eos but no pad."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, max_token_length=8, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _save(tokenizer, folder, **named)


def bert(folder: Path) -> Path:
    """WordPiece on lower-cased text, with a pad, and neither bos nor eos."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=["[PAD]", "[UNK]", "[CLS]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    return _save(tokenizer, folder, **named)


def unigram(folder: Path) -> Path:
    """A SentencePiece-like model that may take a spelled-out special token for the token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _save(tokenizer, folder, **named)
