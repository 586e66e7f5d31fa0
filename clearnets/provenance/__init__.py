"""Trace results to their sources, check files against the record, and bundle them."""
