"""Figures, the manuscript, its claims, and the comparison of two sets of tables."""
