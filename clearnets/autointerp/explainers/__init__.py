"""clearnets explainers."""
