"""Reranking datasets from the Hub, from disk or bundled, as validated values."""
