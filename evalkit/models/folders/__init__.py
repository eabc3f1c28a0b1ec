"""What a model's folder says of itself: its files read, its kind and recipe, and what can't be honoured refused by name."""
