"""Language models and classifiers: the sparse GPT-NeoX, models of others, hookpoints, FLOPs."""
