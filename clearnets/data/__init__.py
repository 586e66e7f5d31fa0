"""clearnets data."""
