"""Tables of a comparison: statistics, scores, contrasts, and their summary in Markdown."""
