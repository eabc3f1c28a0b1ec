"""`evalkit check`: whether results got worse than a baseline, and whether that could be chance."""
