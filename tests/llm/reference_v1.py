"""ChatGLM-6B's forward pass written a second time: one token, one head, one number at a time.

Slow and plain on purpose: loops instead of batched products, explicit masks and angles, float64.
It shares no code with `llm`; it follows the published description, not our implementation.
"""

import math

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def forward(
    weights: dict[str, Matrix], ids: list[int], *, n_layers: int, n_heads: int, prompt_tokens: int
) -> Matrix:
    """Return logits (tokens, vocabulary) for a prompt whose last two ids are [gMASK], <sop>."""
    context = prompt_tokens - 1
    x = [weights["embedding"][i] for i in ids]
    for layer in range(n_layers):
        x = _block(weights, f"layers.{layer}", x, n_heads, context)
    normed = [_layer_norm(weights, "final_norm", row) for row in x]
    return np.stack([weights["head"] @ row for row in normed])


def _block(
    weights: dict[str, Matrix], name: str, x: list[Matrix], n_heads: int, context: int
) -> list[Matrix]:
    alpha = math.sqrt(56)
    normed = [_layer_norm(weights, f"{name}.attention_norm", row) for row in x]
    attended = _attention(weights, name, normed, n_heads, context)
    x = [alpha * row + out for row, out in zip(normed, attended, strict=True)]
    normed = [_layer_norm(weights, f"{name}.ffn_norm", row) for row in x]
    out = []
    for row in normed:
        h = weights[f"{name}.ffn_in"] @ row + weights[f"{name}.ffn_in.bias"]
        h = 0.5 * h * (1 + np.tanh(0.7978845608028654 * h * (1 + 0.044715 * h * h)))
        h = weights[f"{name}.ffn_out"] @ h + weights[f"{name}.ffn_out.bias"]
        out.append(alpha * row + h)
    return out


def _attention(
    weights: dict[str, Matrix], name: str, x: list[Matrix], n_heads: int, context: int
) -> list[Matrix]:
    size = len(x[0]) // n_heads
    queries, keys, values = [], [], []
    for index, row in enumerate(x):
        qkv = weights[f"{name}.qkv"] @ row + weights[f"{name}.qkv.bias"]
        per_head = [qkv[h * 3 * size : (h + 1) * 3 * size] for h in range(n_heads)]
        position = index if index < context else context - 1
        block = 0 if index < context else index - context + 1
        queries.append([_rotate(part[:size], position, block) for part in per_head])
        keys.append([_rotate(part[size : 2 * size], position, block) for part in per_head])
        values.append([part[2 * size :] for part in per_head])
    out = []
    for i in range(len(x)):
        seen = [j for j in range(len(x)) if j < context or j <= i]
        if i < context:
            seen = [j for j in seen if j < context]
        heads = []
        for h in range(n_heads):
            scores = np.array([queries[i][h] @ keys[j][h] / math.sqrt(size) for j in seen])
            shares = np.exp(scores - scores.max())
            shares /= shares.sum()
            heads.append(sum(s * values[j][h] for s, j in zip(shares, seen, strict=True)))
        joined = np.concatenate(heads)
        out.append(
            weights[f"{name}.attention_out"] @ joined + weights[f"{name}.attention_out.bias"]
        )
    return out


def _rotate(vector: Matrix, position: int, block: int) -> Matrix:
    half = len(vector) // 2
    return np.concatenate(
        [_rotate_half(vector[:half], position), _rotate_half(vector[half:], block)]
    )


def _rotate_half(vector: Matrix, position: int) -> Matrix:
    width = len(vector)
    turned = np.empty(width)
    for i in range(width // 2):
        angle = position * 10000 ** (-2 * i / width)
        a, b = vector[i], vector[i + width // 2]
        turned[i] = a * math.cos(angle) - b * math.sin(angle)
        turned[i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
    return turned


def _layer_norm(weights: dict[str, Matrix], name: str, row: Matrix) -> Matrix:
    centred = row - row.mean()
    scaled = centred / math.sqrt((centred**2).mean() + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
