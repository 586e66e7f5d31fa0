"""Statistics over latents, and the tables of the comparison."""
