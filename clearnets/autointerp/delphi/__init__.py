"""Exchange with delphi: its sampler, prompts and file layout."""
