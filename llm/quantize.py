"""Weight-only quantization: matrices to integer codes and back. Pure functions, no files.

Two forms of a matrix W (N, K):

- int8: one scale per output row, symmetric, ``W[n, k] ~ scale[n] * code[n, k]``.
- int4: codes 0..15 in groups of `group_size` along K,
  ``W[n, k] ~ scale[n, k // g] * (code[n, k] - 8) + zero[n, k // g]``.

Scales and zeros are rounded to bfloat16 *before* the codes are chosen, because that is what the
kernels multiply with; so rounding them costs nothing afterwards. The published ChatGLM int4 and
int8 checkpoints (symmetric, one fp16 scale per row) are taken over code for code.

Not covered: calibration on text (GPTQ, AWQ), activation quantization.
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch

from llm.errors import CheckpointError

GROUP_SIZES = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """codes: (N, K) int8 in -127..127; scales: (N,), floating."""

    codes: torch.Tensor
    scales: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return (self.codes.shape[0], self.codes.shape[1])


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """Two codes per byte.

    codes: (N, K / 2) uint8, even columns in the low half of each byte;
    scales: (N, K / g), floating; zeros: the same, or None where every zero is 0.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        return (self.codes.shape[0], 2 * self.codes.shape[1])

    @property
    def group_size(self) -> int:
        return self.shape[1] // self.scales.shape[1]


Weight: TypeAlias = torch.Tensor | Int8Weight | Int4Weight


def quantize_int8(weight: torch.Tensor) -> Int8Weight:
    """Round each row to 255 levels.

    Error: ``|W - dequantized| <= scale / 2`` with ``scale = max|row| / 127`` within 2**-8.

    Args:
        weight: (N, K), floating.

    Raises:
        CheckpointError: the matrix holds NaN or infinity.
    """
    _check_finite(weight)
    rows = weight.float()
    # An all-zero row would divide by zero; its codes are 0 under any scale.
    scales = (rows.abs().amax(1) / 127).to(torch.bfloat16)
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    codes = (rows / scales.float()[:, None]).round_().clamp_(-127, 127)
    return Int8Weight(codes.to(torch.int8), scales)


def quantize_int4(weight: torch.Tensor, group_size: int = 32) -> Int4Weight:
    """Round each group of `group_size` columns of a row to 16 levels between its extremes.

    Error: ``|W - dequantized| <= scale / 2 + 2**-8 * max|group|`` with
    ``scale = (max - min) / 15``; the second part is the rounding of scale and zero to bfloat16.

    Args:
        weight: (N, K), floating, K a multiple of `group_size`.
        group_size: 32, 64 or 128; smaller is more exact, and larger on disk (0.625 bytes per
            weight at 32, 0.53 at 128).

    Raises:
        CheckpointError: the matrix holds NaN or infinity.
        ValueError: K is no multiple of the group size.
    """
    n_rows, n_columns = weight.shape
    if group_size not in GROUP_SIZES or n_columns % group_size:
        raise ValueError(f"{n_columns} columns cannot be cut into groups of {group_size}")
    _check_finite(weight)
    groups = weight.float().view(n_rows, n_columns // group_size, group_size)
    low, high = groups.aminmax(dim=2)
    scales = ((high - low) / 15).to(torch.bfloat16)
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    zeros = (low + 8 * scales.float()).to(torch.bfloat16)
    codes = (groups - zeros.float()[..., None]).div_(scales.float()[..., None])
    codes = codes.round_().add_(8).clamp_(0, 15).to(torch.uint8).view(n_rows, n_columns)
    return Int4Weight(pack_nibbles(codes), scales, zeros)


def dequantize(weight: Weight, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the matrix (N, K) that the codes stand for, computed in fp32, cast to `dtype`."""
    if isinstance(weight, torch.Tensor):
        return weight.to(dtype)
    if isinstance(weight, Int8Weight):
        return (weight.codes.float() * weight.scales.float()[:, None]).to(dtype)
    n_rows, n_columns = weight.shape
    codes = unpack_nibbles(weight.codes).float().sub_(8)
    groups = codes.view(n_rows, -1, weight.group_size).mul_(weight.scales.float()[..., None])
    if weight.zeros is not None:
        groups += weight.zeros.float()[..., None]
    return groups.view(n_rows, n_columns).to(dtype)


def take_rows(weight: Weight, rows: slice) -> Weight:
    """Return some rows of a matrix in the form it has."""
    if isinstance(weight, torch.Tensor):
        return weight[rows]
    if isinstance(weight, Int8Weight):
        return Int8Weight(weight.codes[rows], weight.scales[rows])
    zeros = weight.zeros[rows] if weight.zeros is not None else None
    return Int4Weight(weight.codes[rows], weight.scales[rows], zeros)


def from_official_int8(codes: torch.Tensor, scales: torch.Tensor) -> Int8Weight:
    """Take over a matrix of a published int8 checkpoint: codes (N, K) int8, scales (N,)."""
    return Int8Weight(codes.contiguous(), scales.contiguous())


def from_official_int4(packed: torch.Tensor, scales: torch.Tensor) -> Int4Weight:
    """Take over a matrix of a published int4 checkpoint exactly.

    Args:
        packed: (N, K / 2) int8; even columns in the **high** half of a byte, odd ones in the
            low half, each a signed number in two's complement.
        scales: (N,), fp16 or fp32.
    """
    octets = packed.view(torch.uint8)
    # -8..7 in two's complement becomes 0..15 by flipping the sign bit of each half.
    swapped = ((octets >> 4) | (octets << 4)) ^ 0x88
    return Int4Weight(swapped.contiguous(), scales.reshape(-1, 1).contiguous(), None)


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Put pairs of codes 0..15 (N, K) uint8 into bytes (N, K / 2), even columns low."""
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Undo `pack_nibbles`."""
    pairs = torch.stack((packed & 0xF, packed >> 4), dim=-1)
    return pairs.view(packed.shape[0], -1)


def _check_finite(weight: torch.Tensor) -> None:
    if not torch.isfinite(weight).all():
        raise CheckpointError("the matrix holds numbers that are not finite; fetch it again")
