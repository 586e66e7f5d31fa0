"""clearnets training."""
