"""What a cross-encoder's weight files say of its head."""

from __future__ import annotations

from pathlib import Path

from evalkit.models.settings import ModelSettings
from evalkit.models.weights import SAFE_WEIGHTS

HEADS = ("classifier.", "score.")


def head_is_new(settings: ModelSettings) -> bool | None:
    """Whether every bias of the scoring head is exactly zero: so a library creates it, and no training leaves it.

    None where that can't be seen: no cross-encoder in a folder, no safetensors, or a head without biases.
    """
    if settings.kind != "cross-encoder" or not settings.path:
        return None
    from safetensors import SafetensorError, safe_open

    biases = []
    try:
        for path in sorted(Path(settings.path).expanduser().glob(SAFE_WEIGHTS)):
            with safe_open(path, framework="numpy") as tensors:
                names = [name for name in tensors.keys() if name.startswith(HEADS) and name.endswith(".bias")]  # noqa: SIM118
                biases += [tensors.get_tensor(name) for name in names]
    except (OSError, SafetensorError, TypeError):  # loading them says what is wrong; numpy has no bf16
        return None
    return all(not bias.any() for bias in biases) if biases else None
