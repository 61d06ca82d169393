"""Q4_K and Q6_K in numpy: 256 weights a block, each sub-block with a scale found by least squares.

Layouts are those of `block_q4_K` and `block_q6_K` in ggml's `ggml-common.h`.
"""

import numpy as np

BLOCK = 256
TINY = 1e-30


def affine_scales(x: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the minimum, `x ≈ scale * q - minimum`, of each last-axis group; q is 0 to `top`.

    Tries several steps, fits both numbers to each by least squares and keeps what errs least.
    """
    low = np.minimum(x.min(-1, keepdims=True), 0.0)
    width = np.maximum(x.max(-1, keepdims=True), 0.0) - low
    count = x.shape[-1]
    scale, minimum = width / top, -low
    error = np.full_like(width, np.inf)
    for stretch in np.arange(-1.0, 1.05, 0.1):
        q = np.clip(np.rint((x - low) * (top + stretch) / np.maximum(width, TINY)), 0, top)
        sum_q, sum_qq = q.sum(-1, keepdims=True), (q * q).sum(-1, keepdims=True)
        sum_x, sum_qx = x.sum(-1, keepdims=True), (q * x).sum(-1, keepdims=True)
        determinant = count * sum_qq - sum_q * sum_q
        slope = (count * sum_qx - sum_q * sum_x) / np.maximum(determinant, TINY)
        offset = (sum_q * slope - sum_x) / count
        slope = np.where(offset < 0, sum_qx / np.maximum(sum_qq, TINY), slope)
        offset = np.maximum(offset, 0.0)
        trial = ((slope * q - offset - x) ** 2).sum(-1, keepdims=True)
        better = (trial < error) & (slope > 0)
        scale, minimum = np.where(better, slope, scale), np.where(better, offset, minimum)
        error = np.where(better, trial, error)
    return scale[..., 0], minimum[..., 0]


def symmetric_scales(x: np.ndarray, top: int) -> np.ndarray:
    """The scale, `x ≈ scale * q`, of each last-axis group; q is `-top` to `top - 1`, the scale may be negative."""
    peak = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)
    peak = np.where(np.abs(peak) < TINY, TINY, peak)
    scale = -peak / top
    error = np.full_like(peak, np.inf)
    for stretch in np.arange(-0.9, 0.95, 0.1):
        q = np.clip(np.rint(-x * (top + stretch) / peak), -top, top - 1)
        slope = (q * x).sum(-1, keepdims=True) / np.maximum((q * q).sum(-1, keepdims=True), TINY)
        trial = ((slope * q - x) ** 2).sum(-1, keepdims=True)
        better = trial < error
        scale, error = np.where(better, slope, scale), np.where(better, trial, error)
    return scale[..., 0]


def coarse(values: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """One f16 step for a block's scales, and the scales as integers up to `top` in size."""
    step = (np.abs(values).max(-1, keepdims=True) / top).astype(np.float16)
    integers = np.clip(np.rint(values / np.maximum(step.astype(np.float64), TINY)), -top, top)
    return step, integers


def as_bytes(step: np.ndarray) -> np.ndarray:
    return step.astype("<f2").view(np.uint8)


def quantize_q4_k(matrix: np.ndarray) -> np.ndarray:
    """Rows of f32 to rows of Q4_K bytes, 144 to a block."""
    x = matrix.astype(np.float64).reshape(-1, 8, 32)
    scale, minimum = affine_scales(x, 15)
    d, scale = coarse(scale, 63)
    dmin, minimum = coarse(minimum, 63)
    step = (d.astype(np.float64) * scale)[..., None]
    offset = (dmin.astype(np.float64) * minimum)[..., None]
    q = np.clip(np.rint((x + offset) / np.maximum(step, TINY)), 0, 15).astype(np.uint8)
    s, m = scale.astype(np.uint8), minimum.astype(np.uint8)
    scales = np.concatenate(
        [
            s[:, :4] | (s[:, 4:] >> 4 << 6),
            m[:, :4] | (m[:, 4:] >> 4 << 6),
            (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
    nibbles = (q[:, 0::2] | q[:, 1::2] << 4).reshape(-1, BLOCK // 2)
    blocks = np.concatenate([as_bytes(d), as_bytes(dmin), scales, nibbles], axis=1)
    return blocks.reshape(matrix.shape[0], -1)


def quantize_q6_k(matrix: np.ndarray) -> np.ndarray:
    """Rows of f32 to rows of Q6_K bytes, 210 to a block."""
    x = matrix.astype(np.float64).reshape(-1, 16, 16)
    d, scale = coarse(symmetric_scales(x, 32), 127)
    step = (d.astype(np.float64) * scale)[..., None]
    step = np.where(np.abs(step) < TINY, TINY, step)
    q = (np.clip(np.rint(x / step), -32, 31) + 32).astype(np.uint8)
    q = q.reshape(-1, 2, 4, 32)  # a block's halves, then four runs of 32 in each
    nibbles = q & 15
    low = nibbles[:, :, :2] | nibbles[:, :, 2:] << 4
    high = q[:, :, 0] >> 4 | (q[:, :, 1] >> 4 << 2) | (q[:, :, 2] >> 4 << 4) | (q[:, :, 3] >> 4 << 6)
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), scale.astype(np.int8).view(np.uint8), as_bytes(d)]
    return np.concatenate(parts, axis=1).reshape(matrix.shape[0], -1)
