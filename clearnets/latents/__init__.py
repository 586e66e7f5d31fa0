"""clearnets latents."""
