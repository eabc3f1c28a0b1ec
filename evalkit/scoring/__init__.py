"""From a task and a scorer to a run: unique work, planned, scored once, back in order."""
