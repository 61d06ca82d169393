"""The network once more, in plain numpy and f64, on the weights as the file holds them."""

from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from shape import Shape

Weights = dict[str, np.ndarray]


def read_weights(path: str) -> Weights:
    """Every tensor of a GGUF file, dequantised and widened to f64."""
    return {tensor.name: widened(tensor.data, tensor.tensor_type) for tensor in GGUFReader(path).tensors}


def widened(data: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    return dequantize(data, kind).astype(np.float64)


def rms_norm(x: np.ndarray, gain: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * gain


def rotate(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotary embedding of `[position, head, dim]`; dimension i turns with i + dim/2."""
    low, high = np.split(x, 2, axis=-1)
    cosine, sine = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)


def attend(qkv: np.ndarray, shape: Shape, angle: np.ndarray) -> np.ndarray:
    """Causal grouped-query attention over the fused rows `[position, q + k + v]`."""
    length = qkv.shape[0]
    q, k, v = np.split(qkv, [shape.hidden, shape.hidden + shape.kv_hidden], axis=-1)
    q = rotate(q.reshape(length, shape.heads, shape.head_dim), angle)
    k = rotate(k.reshape(length, shape.kv_heads, shape.head_dim), angle)
    v = v.reshape(length, shape.kv_heads, shape.head_dim)
    k, v = (np.repeat(part, shape.heads // shape.kv_heads, axis=1) for part in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(shape.head_dim)
    scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", scores, v).reshape(length, shape.hidden)


def logits(weights: Weights, ids: list[int], shape: Shape) -> np.ndarray:
    """Logits `[position, vocabulary]` of one sequence."""
    angle = np.arange(len(ids))[:, None] * shape.rope_frequencies()[None, :]
    x = weights["token_embd.weight"][ids]
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        normed = rms_norm(x, weights[prefix + "attn_norm.weight"], shape.epsilon)
        mixed = attend(normed @ weights[prefix + "attn_qkv.weight"].T, shape, angle)
        x = x + mixed @ weights[prefix + "attn_output.weight"].T
        normed = rms_norm(x, weights[prefix + "ffn_norm.weight"], shape.epsilon)
        gate, up = np.split(normed @ weights[prefix + "ffn_up.weight"].T, 2, axis=-1)
        x = x + (gate / (1.0 + np.exp(-gate)) * up) @ weights[prefix + "ffn_down.weight"].T
    return rms_norm(x, weights["output_norm.weight"], shape.epsilon) @ weights["output.weight"].T


def mean_loss(weights: Weights, documents: list[list[int]], shape: Shape) -> float:
    """Mean cross-entropy, in nats, of each next token of some documents."""
    total, count = 0.0, 0
    for ids in documents:
        scores = logits(weights, ids[: shape.context], shape)[:-1]
        scores -= scores.max(-1, keepdims=True)
        targets = ids[1 : shape.context]
        total += float((np.log(np.exp(scores).sum(-1)) - scores[np.arange(len(targets)), targets]).sum())
        count += len(targets)
    return total / count


@dataclass(frozen=True)
class Continuation:
    """What greedy choice makes of a prompt: ids, the chosen logits, and their lead over the second best."""

    ids: list[int]
    logits: list[float]
    margins: list[float]


def continue_greedily(weights: Weights, prompt: list[int], count: int, shape: Shape) -> Continuation:
    """`count` tokens, end tokens included like any other."""
    ids, chosen, margins = list(prompt), [], []
    for _ in range(count):
        last = logits(weights, ids, shape)[-1]
        second, best = np.argsort(last)[-2:]
        ids.append(int(best))
        chosen.append(float(last[best]))
        margins.append(float(last[best] - last[second]))
    return Continuation(ids[len(prompt) :], chosen, margins)


def sample(
    weights: Weights, prompt: list[int], count: int, shape: Shape, temperature: float, stops: set[int], seed: int
) -> list[int]:
    """At most `count` ids drawn at a temperature, up to the first stop token."""
    rng = np.random.default_rng(seed)
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        last = logits(weights, ids, shape)[-1] / temperature
        chances = np.exp(last - last.max())
        ids.append(int(rng.choice(len(chances), p=chances / chances.sum())))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]
