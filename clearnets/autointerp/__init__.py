"""clearnets autointerp."""
