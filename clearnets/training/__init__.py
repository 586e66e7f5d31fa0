"""Training of language models, and taking over pretrained ones."""
