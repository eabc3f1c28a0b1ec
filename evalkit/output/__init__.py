"""What evalkit writes: tables, numbers, JSON and files, and text made fit to print."""
