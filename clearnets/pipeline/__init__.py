"""How stages run: artifacts on disk, their paths, runtime, progress, experiments."""
