"""Re-runs, checks and extends the C-MTEB reranking benchmark."""

__version__ = "0.1.0"
