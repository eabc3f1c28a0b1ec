"""Which parts of an embedder its network's own graph computes, and which come behind it."""

from __future__ import annotations

from evalkit.models.settings import ModelSettings


def parts_within(settings: ModelSettings) -> tuple[str, ...]:
    """Return the parts that the network's own graph computes: pooling, and the normalisations right behind it."""
    if not settings.modules:
        return ("Pooling", "Normalize") if settings.similarity == "cosine" else ("Pooling",)
    if settings.modules[0] != "Pooling":
        return ()
    behind = next((at for at, part in enumerate(settings.modules) if ":" in part), len(settings.modules))
    return settings.modules[:behind]


def parts_behind(settings: ModelSettings) -> tuple[str, ...]:
    """Return the parts that run behind the network's own graph, in order."""
    return settings.modules[len(parts_within(settings)) :] if settings.modules else ()


def network_output(settings: ModelSettings) -> str:
    """Return what the network's own graph gives: `sentence_embedding`, `token_embeddings` or `all_layer_embeddings`."""
    if parts_within(settings):
        return "sentence_embedding"
    layers = any(part.startswith("WeightedLayerPooling:") for part in settings.modules)
    return "all_layer_embeddings" if layers else "token_embeddings"


def graph_name(settings: ModelSettings) -> str:
    """Return what names a network's own graph among those of the same weights: all of the recipe that is computed in it."""
    if settings.kind == "cross-encoder" and not settings.modules:
        return settings.kind if settings.label is None else f"{settings.kind}-{settings.label}"
    pooling = settings.pooling if parts_within(settings) else network_output(settings)
    prompts = [] if settings.pool_prompt else ["without-prompt"]
    return "-".join([settings.kind, pooling, *parts_within(settings), *prompts])
