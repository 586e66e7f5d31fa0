"""Sparsity over training: what of a network's latents says when and how well it generalizes."""
