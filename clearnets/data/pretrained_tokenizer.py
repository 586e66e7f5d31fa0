"""Pretrained tokenizers, from a folder or the hub, with missing special tokens added."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.config import (
    AnyTokenizer,
    PretrainedTokenizer,
    RestrictedTokenizer,
    TrainedTokenizer,
)
from clearnets.data.files import hashes
from clearnets.data.tokenizer import SPECIALS, Specials, Vocabulary
from clearnets.pipeline.hub_client import detect_offline, network_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What transformers raises where tokenizer.json holds something else.
_NO_TOKENIZER = (ValueError, KeyError, TypeError, AttributeError)


def tokenizer_fingerprints(settings: AnyTokenizer) -> dict[str, str]:
    """Return the SHA-256 of each file of a tokenizer's folder; {} if it has no folder."""
    if isinstance(settings, TrainedTokenizer) or not Path(settings.name).is_dir():
        return {}
    root = Path(settings.name)
    # The folder may hold weights, too: they are not read.
    types = (".json", ".jinja", ".model", ".txt")
    return hashes(root, sorted(path for path in root.iterdir() if path.suffix in types))


def load_fast(settings: PretrainedTokenizer | RestrictedTokenizer) -> Any:
    """Return the tokenizer as transformers loads it.

    Raises:
        UserError: it is in no folder and cannot be downloaded, or it is not a fast one.
    """
    from transformers import AutoTokenizer

    name = settings.name
    try:
        # A folder needs no hub.
        with nullcontext(True) if Path(name).is_dir() else detect_offline() as offline:
            found = AutoTokenizer.from_pretrained(
                name,
                revision=settings.revision or "main",
                trust_remote_code=False,
                local_files_only=offline,
            )
    # The last four: tokenizer.json is JSON of another kind.
    except (
        *network_errors(),
        ImportError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"tokenizer {name!r} cannot be had ({reason:.160}); give data.tokenizer.name a folder "
            "with tokenizer.json, or `kind: trained`"
        ) from None
    if not getattr(found, "is_fast", False):
        raise UserError(
            f"tokenizer {name!r} is not a fast one (no tokenizer.json can be made of it); choose "
            "another, or `kind: trained`"
        )
    return found


def backend(found: Any) -> Tokenizer:
    """Return a copy of the `tokenizers` object, without padding and truncation."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_pretrained(settings: PretrainedTokenizer) -> Vocabulary:
    """Load a tokenizer and give it distinct pad, bos and eos tokens.

    Its own ones are used, eos first. One that is missing or equal to another is added at the end
    of the vocabulary, so that no embedding of a pretrained model is overwritten.

    Raises:
        UserError: as `load_fast`; or it has more tokens than `settings.vocab_size`.
    """
    found = load_fast(settings)
    tokenizer = backend(found)
    own = {kind: getattr(found, f"{kind}_token", None) for kind in ("eos", "bos", "pad")}
    chosen: dict[str, str] = {}
    for kind, token in own.items():
        usable = token is not None and tokenizer.token_to_id(str(token)) is not None
        # Text may hold unknown tokens, which are not pads.
        if kind == "pad" and token == found.unk_token:
            usable = False
        if usable and str(token) not in chosen.values():
            chosen[kind] = str(token)
    lacking = [kind for kind in SPECIALS._fields if kind not in chosen]
    for kind in lacking:
        chosen[kind] = _append(tokenizer, kind)
    tokenizer.encode_special_tokens = True

    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    wanted = settings.vocab_size or size
    if size > wanted:
        added = f" ({' and '.join(lacking)} added)" if lacking else ""
        raise UserError(
            f"tokenizer {settings.name!r} has {size} tokens with its special ones{added} and "
            f"data.tokenizer.vocab_size is {wanted}; set it to {size} or more, or to null"
        )
    return Vocabulary(tokenizer, Specials(**chosen), wanted, settings.open_ended)


def _append(tokenizer: Tokenizer, kind: str) -> str:
    """Add a special token with an unused name at the end of the vocabulary; return the name."""
    from tokenizers import AddedToken

    taken = tokenizer.get_vocab(with_added_tokens=True)
    name = f"<{kind}>"
    while name in taken:
        name = f"<{name[1:-1]}_>"
    tokenizer.add_special_tokens([AddedToken(name, normalized=False)])
    number = tokenizer.token_to_id(name)
    assert number is not None
    assert number > max(taken.values())
    return name
