"""Activations of latents: reading them from models, the cache on disk, windows, concepts."""
