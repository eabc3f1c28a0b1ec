"""Who runs a model: one module per system, each imported only when it is chosen."""
