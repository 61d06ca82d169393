"""The shape of the box model: one place for its sizes, its tensors and their formats."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """Sizes of a Phi-3 network. Row lengths are multiples of 256, the size of a K-quant block."""

    vocabulary: int = 1280
    context: int = 512
    layers: int = 4
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 768
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def kv_hidden(self) -> int:
        """Rows of k, and of v, in the fused matrix."""
        return self.kv_heads * self.head_dim

    def rope_frequencies(self) -> np.ndarray:
        """Radians per position of each rotated pair, `[head_dim / 2]`."""
        return self.rope_base ** (-2.0 * np.arange(self.head_dim // 2) / self.head_dim)


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor by its GGUF name, as `(rows, row length)` or `(length,)`, in the order of the file."""
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocabulary, shape.hidden)}
    for layer in range(shape.layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": (shape.hidden,),
            f"blk.{layer}.attn_qkv.weight": (shape.hidden + 2 * shape.kv_hidden, shape.hidden),
            f"blk.{layer}.attn_output.weight": (shape.hidden, shape.hidden),
            f"blk.{layer}.ffn_norm.weight": (shape.hidden,),
            f"blk.{layer}.ffn_up.weight": (2 * shape.ffn, shape.hidden),
            f"blk.{layer}.ffn_down.weight": (shape.hidden, shape.ffn),
        }
    return tensors | {
        "output_norm.weight": (shape.hidden,),
        "output.weight": (shape.vocabulary, shape.hidden),
    }
