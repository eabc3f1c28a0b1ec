"""Recipes: what goes into a network and how a score comes out of it."""
