"""clearnets scorers."""
