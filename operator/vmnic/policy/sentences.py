"""Messages of several sentences."""

__all__ = ["join_sentences"]


def join_sentences(*parts: str) -> str:
    """Join texts into sentences. A single text gets no final period, as in conditions of Kubernetes."""
    texts = [part.rstrip(".") for part in parts if part]
    return ". ".join(texts) + ("." if len(texts) > 1 or ". " in "".join(texts) else "")
