"""Corpora, tokenizers, packed tokens and labelled pictures."""
