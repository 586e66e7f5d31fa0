"""Latents for people to look at: an HTML page and a view in the terminal."""
