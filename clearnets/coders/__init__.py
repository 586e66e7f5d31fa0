"""SAEs and transcoders: their training, loading and evaluation."""
