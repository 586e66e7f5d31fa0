"""The feature browser: one latent with all results about it, as an HTML page and in a terminal."""
