"""Systems compared on the same queries."""
