"""All results of one experiment as small tidy tables."""
