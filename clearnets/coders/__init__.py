"""clearnets coders."""
