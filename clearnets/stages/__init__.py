"""clearnets stages."""
