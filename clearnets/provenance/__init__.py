"""What a recorded run was made from, and whether its files are still the recorded ones."""
