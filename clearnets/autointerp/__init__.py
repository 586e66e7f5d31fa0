"""Automatic interpretation: sampling of windows, explainers and scorers of latents."""
