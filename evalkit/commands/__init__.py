"""The command line: a module per command, which holds what the command takes and calls its room; `main` starts them."""
