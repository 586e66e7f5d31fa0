"""Explainers and scorers that ask a language model."""
