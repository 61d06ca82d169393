"""Train the box model with JAX on the CPU.

The network is Phi-3's: RMSNorm, fused q/k/v, rotary position embedding on rotated halves, grouped-query
attention, SwiGLU, an output matrix of its own. Weights are kept under their GGUF tensor names, each matrix
as GGUF stores it, one output per row, so that export needs no renaming and no transposition.
"""

import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from shape import Shape, tensor_shapes

Weights = dict[str, jax.Array]


@dataclass(frozen=True)
class Schedule:
    """One round: how long to train and on how much at a time."""

    documents: int  # composed for this round
    steps: int
    long_steps: int  # the last of them, on rows of the whole context
    peak_rate: float
    tokens_per_step: int = 2048
    row: int = 256  # tokens in a row before the long steps
    warmup: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.98

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / (self.steps - self.warmup)
        return self.peak_rate * 0.5 * (1.0 + float(np.cos(np.pi * progress)))


def initial_weights(shape: Shape, seed: int) -> Weights:
    """Normal weights, narrower where they write to the residual stream; norms are one."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, dims in tensor_shapes(shape).items():
        if len(dims) == 1:
            weights[name] = jnp.ones(dims, jnp.float32)
            continue
        spread = 0.03
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            spread /= np.sqrt(2 * shape.layers)
        weights[name] = jnp.asarray(rng.normal(0.0, spread, dims), jnp.float32)
    return weights


def rms_norm(x: jax.Array, gain: jax.Array, epsilon: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon) * gain


def dot(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Product of two matrices over one axis of each: factors rounded to bfloat16, sums in f32."""
    dims = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), dims, preferred_element_type=jnp.float32)


@jax.custom_vjp
def project(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """`x @ matrix.T` for `x` of shape `[tokens, columns]` and a matrix of shape `[rows, columns]`."""
    return dot(x, matrix, (1, 1))


project.defvjp(
    lambda x, matrix: (project(x, matrix), (x, matrix)),
    lambda saved, g: (dot(g, saved[1], (1, 0)), dot(g, saved[0], (0, 0))),
)


def rotate(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Rotary embedding of `[batch, position, head, dim]`; dimension i turns with i + dim/2."""
    low, high = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)


def logits(weights: Weights, ids: jax.Array, shape: Shape) -> jax.Array:
    """Logits `[batch, position, vocabulary]` of rows of ids."""
    batch, length = ids.shape
    groups = shape.heads // shape.kv_heads
    angle = jnp.arange(length)[:, None] * jnp.asarray(shape.rope_frequencies(), jnp.float32)[None, :]
    cosine, sine = jnp.cos(angle)[:, None, :], jnp.sin(angle)[:, None, :]
    causal = jnp.tril(jnp.ones((length, length), bool))
    x = weights["token_embd.weight"][ids].reshape(batch * length, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        normed = rms_norm(x, weights[prefix + "attn_norm.weight"], shape.epsilon)
        qkv = project(normed, weights[prefix + "attn_qkv.weight"])
        q, k, v = jnp.split(qkv, [shape.hidden, shape.hidden + shape.kv_hidden], axis=-1)
        q = rotate(q.reshape(batch, length, shape.heads, shape.head_dim), cosine, sine)
        k = rotate(k.reshape(batch, length, shape.kv_heads, shape.head_dim), cosine, sine)
        v = v.reshape(batch, length, shape.kv_heads, shape.head_dim)
        q = q.reshape(batch, length, shape.kv_heads, groups, shape.head_dim)
        scores = jnp.einsum("bqhgd,bkhd->bhgqk", q, k) / np.sqrt(shape.head_dim)
        scores = jax.nn.softmax(jnp.where(causal, scores, -1e30), axis=-1)
        mixed = jnp.einsum("bhgqk,bkhd->bqhgd", scores, v).reshape(batch * length, shape.hidden)
        x = x + project(mixed, weights[prefix + "attn_output.weight"])
        normed = rms_norm(x, weights[prefix + "ffn_norm.weight"], shape.epsilon)
        gate, up = jnp.split(project(normed, weights[prefix + "ffn_up.weight"]), 2, axis=-1)
        x = x + project(jax.nn.silu(gate) * up, weights[prefix + "ffn_down.weight"])
    x = project(rms_norm(x, weights["output_norm.weight"], shape.epsilon), weights["output.weight"])
    return x.reshape(batch, length, shape.vocabulary)


def loss(weights: Weights, rows: jax.Array, shape: Shape) -> jax.Array:
    """Mean cross-entropy, in nats, of each next token."""
    scores = jax.nn.log_softmax(logits(weights, rows[:, :-1], shape), axis=-1)
    return -jnp.mean(jnp.take_along_axis(scores, rows[:, 1:, None], axis=-1))


@partial(jax.jit, static_argnames=("shape", "schedule"), donate_argnums=(0, 1, 2))
def adam_step(
    weights: Weights,
    mean: Weights,
    square: Weights,
    rows: jax.Array,
    rate: jax.Array,
    count: jax.Array,
    shape: Shape,
    schedule: Schedule,
) -> tuple[Weights, Weights, Weights, jax.Array]:
    """One AdamW step with the gradient's norm clipped; matrices decay, norms do not."""
    value, gradient = jax.value_and_grad(loss)(weights, rows, shape)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradient.values()))
    scale = jnp.minimum(1.0, schedule.clip / (norm + 1e-9))
    b1, b2 = schedule.beta1, schedule.beta2
    for name, g in gradient.items():
        g = g * scale
        mean[name] = b1 * mean[name] + (1 - b1) * g
        square[name] = b2 * square[name] + (1 - b2) * g * g
        update = (mean[name] / (1 - b1**count)) / (jnp.sqrt(square[name] / (1 - b2**count)) + 1e-8)
        decay = schedule.weight_decay if weights[name].ndim == 2 else 0.0
        weights[name] = weights[name] - rate * (update + decay * weights[name])
    return weights, mean, square, value


def pack(documents: list[list[int]], row: int) -> np.ndarray:
    """Rows of `row + 1` ids, each beginning with a document; the last document of a row is cut."""
    rows, current = [], []
    for document in documents:
        current.extend(document)
        if len(current) > row:
            rows.append(current[: row + 1])
            current = []
    return np.asarray(rows, np.int32)


def batched(rows: np.ndarray, size: int, steps: int) -> np.ndarray:
    """The rows as `[steps, size, row length]`; what is left over is not used."""
    if len(rows) < steps * size:
        raise ValueError(f"{steps} steps of {size} rows need {steps * size} rows, the text has {len(rows)}")
    return rows[: steps * size].reshape(steps, size, -1)


def train(weights: Weights, documents: list[list[int]], shape: Shape, schedule: Schedule) -> Weights:
    """One round of training, on each document at most once; prints the loss as it falls and uses up the weights.

    Raises `ValueError` where there are too few documents for the schedule.
    """
    short_steps = schedule.steps - schedule.long_steps
    cut = len(documents) * short_steps // schedule.steps
    batches = [
        *batched(pack(documents[:cut], schedule.row), schedule.tokens_per_step // schedule.row, short_steps),
        *batched(pack(documents[cut:], shape.context), schedule.tokens_per_step // shape.context, schedule.long_steps),
    ]
    mean = {name: jnp.zeros_like(w) for name, w in weights.items()}
    square = {name: jnp.zeros_like(w) for name, w in weights.items()}
    recent, started = [], time.time()
    for step, rows in enumerate(batches):
        weights, mean, square, value = adam_step(
            weights, mean, square, rows, schedule.learning_rate(step), float(step + 1), shape, schedule
        )
        recent.append(float(value))
        if (step + 1) % 50 == 0:
            print(f"step {step + 1:5d}  loss {np.mean(recent):.4f}  {time.time() - started:6.0f} s", flush=True)
            recent = []
    return weights
