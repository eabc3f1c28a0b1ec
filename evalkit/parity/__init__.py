"""Whether several backends give one model the same scores, and if not, why: what `evalkit parity` shows."""
