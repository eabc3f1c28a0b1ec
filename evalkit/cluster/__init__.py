"""Scoring on a Ray cluster: actors that hold the model, and the driver that hands windows of the plan out to them."""
