"""The one seam between a model and its kernels: a linear layer that knows its form.

`make_linear` chooses the form once, at load:

| form | weights | decode (few rows) | prefill (many rows) |
|---|---|---|---|
| `float` | fp32, fp16, bf16 | GEMM | GEMM |
| `int8` | codes (N, K) | torch's int8 kernel | blocks of rows expanded, GEMM |
| `int4-tiles` | our tiles | our kernel | our AMX kernel, else blocks expanded, GEMM |
| `int4-packed` | torch's packed int4 | torch's int4 kernel | blocks of rows expanded, GEMM |
| `int4` | codes (N, K / 2) | blocks of rows expanded, GEMM | the same |

`int4-tiles`, `int4-packed` and the int8 kernel need bf16 activations on a CPU; elsewhere (fp32,
CUDA) codes are expanded. Kernels for few rows read each weight once; from some number of rows on,
expanding a block that stays in cache for a GEMM is faster.
"""

from typing import Protocol

import torch
import torch.nn.functional as F

from llm.packed import PackedInt4, expanded
from llm.quantize import Int4Weight, Int8Weight, Weight, dequantize, take_rows
from llm.tiles import TiledInt4, multiply

# Rows of the input up to which torch's weight-only kernels beat expanding and a GEMM.
_KERNEL_ROWS = 16
# Rows of a weight expanded at once: 16 MB for an input of 4,096, far below the matrix,
# and wide enough for the GEMM to run at its own speed.
_BLOCK_ROWS = 2048


class Linear(Protocol):
    """x: (..., K) to (..., N), in the dtype of x."""

    form: str

    @property
    def size_bytes(self) -> int:
        """Bytes read from memory for one row of input."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


def make_linear(
    weight: Weight | PackedInt4 | TiledInt4, bias: torch.Tensor | None, dtype: torch.dtype
) -> Linear:
    """Choose the form for a weight and the dtype and device it will work in.

    Args:
        weight: (N, K) in any form; `PackedInt4` and `TiledInt4` only on a CPU in bf16.
        bias: (N,) or None.
        dtype: of activations.
    """
    bias = bias.to(dtype) if bias is not None else None
    if isinstance(weight, torch.Tensor):
        return FloatLinear(weight.to(dtype), bias)
    if isinstance(weight, PackedInt4):
        return PackedInt4Linear(weight, bias)
    if isinstance(weight, TiledInt4):
        return TiledInt4Linear(weight, bias)
    if isinstance(weight, Int8Weight):
        return Int8Linear(weight, bias, dtype)
    return Int4Linear(weight, bias, dtype)


class FloatLinear:
    form = "float"

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    @property
    def size_bytes(self) -> int:
        return self._weight.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weight, self._bias)


class Int8Linear:
    form = "int8"

    def __init__(self, weight: Int8Weight, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        self._weight, self._bias = weight, bias
        self._scales = weight.scales.to(dtype)
        self._has_kernel = (
            dtype == torch.bfloat16
            and weight.codes.device.type == "cpu"
            and weight.shape[1] % 16 == 0
        )

    @property
    def size_bytes(self) -> int:
        return self._weight.codes.nbytes + self._scales.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (M, K)
        if self._has_kernel and rows.shape[0] <= _KERNEL_ROWS:
            out = torch.ops.aten._weight_int8pack_mm(rows, self._weight.codes, self._scales)
        else:
            out = rows.new_empty(rows.shape[0], self._weight.shape[0])
            for first in range(0, out.shape[1], _BLOCK_ROWS):
                block = slice(first, first + _BLOCK_ROWS)
                matrix = self._weight.codes[block].to(rows.dtype) * self._scales[block][:, None]
                out[:, block] = rows @ matrix.T  # (M, block); unscaled it would overflow fp16
        if self._bias is not None:
            out += self._bias
        return out.view(*x.shape[:-1], -1)


class PackedInt4Linear:
    form = "int4-packed"

    def __init__(self, weight: PackedInt4, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    @property
    def size_bytes(self) -> int:
        return self._weight.codes.nbytes + self._weight.scales_zeros.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self._weight
        rows = x.reshape(-1, x.shape[-1])  # (M, K)
        if rows.shape[0] <= _KERNEL_ROWS:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows, weight.codes, weight.group_size, weight.scales_zeros
            )
        else:
            out = rows.new_empty(rows.shape[0], weight.n_rows)
            for block, matrix in expanded(weight, _BLOCK_ROWS):
                torch.mm(rows, matrix, out=out[:, block])
        if self._bias is not None:
            out += self._bias
        return out.view(*x.shape[:-1], -1)


class TiledInt4Linear:
    form = "int4-tiles"

    def __init__(self, weight: TiledInt4, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    @property
    def size_bytes(self) -> int:
        return self._weight.octets.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = multiply(x.reshape(-1, x.shape[-1]), self._weight)  # (M, N)
        if self._bias is not None:
            out += self._bias
        return out.view(*x.shape[:-1], -1)


class Int4Linear:
    form = "int4"

    def __init__(self, weight: Int4Weight, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        self._weight, self._bias, self._dtype = weight, bias, dtype

    @property
    def size_bytes(self) -> int:
        zeros = self._weight.zeros
        scales = self._weight.scales.nbytes + (zeros.nbytes if zeros is not None else 0)
        return self._weight.codes.nbytes + scales

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self._weight
        parts = []
        for first in range(0, weight.shape[0], _BLOCK_ROWS):
            block = take_rows(weight, slice(first, first + _BLOCK_ROWS))
            parts.append(F.linear(x, dequantize(block, self._dtype)))
        out = torch.cat(parts, dim=-1)
        return out if self._bias is None else out + self._bias
