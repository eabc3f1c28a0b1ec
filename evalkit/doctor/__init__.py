"""What can be seen of a model on a task before hours of inference: measured on a sample, judged by a table of checks."""
