"""Results and their files, and the figures that others publish."""
