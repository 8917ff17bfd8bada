"""Codes and their error bounds, packing, and the linear forms against the dequantized matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.errors import CheckpointError
from llm.linear import make_linear
from llm.native import obstacle
from llm.packed import can_pack, expanded, pack
from llm.parameters import Stored
from llm.quantize import (
    Int4Weight,
    Int8Weight,
    dequantize,
    from_official_int4,
    pack_nibbles,
    quantize_int4,
    quantize_int8,
    unpack_nibbles,
)
from llm.tiles import tile
from tests.llm.checkpoints import official_codes, official_dequantized

needs_kernels = pytest.mark.skipif(obstacle() is not None, reason=f"{obstacle()}")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 10_000), st.sampled_from([1e-4, 1.0, 300.0]), st.booleans())
def test_int8_error_is_within_its_bound(seed: int, size: float, has_outlier: bool) -> None:
    weight = random(8, 96, seed=seed) * size
    if has_outlier:
        weight[3, 5] = 40 * size
    quantized = quantize_int8(weight)
    bound = weight.abs().amax(1) / 127 * (1 + 2**-8) / 2 * (1 + 1e-5)
    assert ((dequantize(quantized) - weight).abs() <= bound[:, None]).all()


@given(st.integers(0, 10_000), st.sampled_from([32, 64, 128]), st.floats(-20, 20))
def test_int4_error_is_within_its_bound(seed: int, group_size: int, offset: float) -> None:
    weight = random(4, 256, seed=seed) + offset
    quantized = quantize_int4(weight, group_size)
    groups = weight.view(4, -1, group_size)
    scale = (groups.amax(2) - groups.amin(2)) / 15
    bound = scale / 2 + groups.abs().amax(2) * 2**-8
    error = (dequantize(quantized).view_as(groups) - groups).abs().amax(2)
    assert (error <= bound * (1 + 1e-5)).all()


def test_constant_and_zero_rows() -> None:
    weight = torch.zeros(16, 64)
    weight[1] = 0.5
    assert torch.equal(dequantize(quantize_int8(weight))[0], weight[0])
    assert torch.equal(dequantize(quantize_int4(weight)), weight)


def test_smaller_groups_are_more_exact() -> None:
    weight = random(64, 512)
    errors = [(dequantize(quantize_int4(weight, g)) - weight).norm() for g in (32, 64, 128)]
    assert errors == sorted(errors)
    assert (dequantize(quantize_int8(weight)) - weight).norm() < errors[0] / 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    weight = random(16, 64)
    weight[2, 3] = bad
    with pytest.raises(CheckpointError, match="not finite"):
        quantize_int8(weight)
    with pytest.raises(CheckpointError, match="not finite"):
        quantize_int4(weight)


def test_nibbles_come_back() -> None:
    codes = torch.randint(0, 16, (5, 34), dtype=torch.uint8)
    assert torch.equal(unpack_nibbles(pack_nibbles(codes)), codes)


def test_official_int4_means_what_its_publisher_wrote() -> None:
    weight = random(16, 64)
    codes, scales = official_codes(weight, 4)
    # the published rule, one number at a time: high half first, two's complement
    first = int(codes[3, 7].item()) & 0xFF
    high, low = first >> 4, first & 0xF
    signed = [value - 16 if value > 7 else value for value in (high, low)]
    found = dequantize(from_official_int4(codes, scales))
    assert found[3, 14] == signed[0] * scales[3].float()
    assert found[3, 15] == signed[1] * scales[3].float()
    assert torch.equal(found, official_dequantized(weight, 4))


@pytest.mark.parametrize("n_rows", [16, 48, 64, 176, 640, 1104])
@pytest.mark.parametrize("group_size", [32, 128])
def test_packed_codes_expand_to_the_same_matrix(n_rows: int, group_size: int) -> None:
    weight = quantize_int4(random(n_rows, 256), group_size)
    packed = pack(weight)
    expected = dequantize(weight, torch.bfloat16)
    for at_once in (64, 128, 1024):
        found = [(rows, matrix.T.clone()) for rows, matrix in expanded(packed, at_once)]
        assert torch.equal(torch.cat([matrix for _, matrix in found]), expected)
        assert found[-1][0].stop == n_rows


@pytest.mark.parametrize("group_size", [32, 64, 128, 13696])
def test_the_width_of_chatglm3(group_size: int) -> None:
    weight = random(64, 13696)
    if group_size == 13696:  # as published: one scale per row
        stored = from_official_int4(*official_codes(weight, 4))
    else:
        stored = quantize_int4(weight, group_size)
    packed = pack(stored)
    x = random(1, 13696, seed=3).bfloat16()
    expected = x.float() @ dequantize(stored).T
    for rows in (x, x.expand(20, -1)):
        found = make_linear(packed, None, torch.bfloat16)(rows)[:1].float()
        assert (found - expected).norm() / expected.norm() < 6e-3


def test_int8_in_fp16_does_not_overflow() -> None:
    weight = torch.full((64, 4096), 0.02)
    x = torch.ones(20, 4096, dtype=torch.float16)
    found = make_linear(quantize_int8(weight), None, torch.float16)(x)
    assert (found - 81.92).abs().max() < 1


def test_what_the_kernel_does_not_take_is_not_packed() -> None:
    assert not can_pack((40, 256), 32)
    assert not can_pack((64, 80), 80)
    with pytest.raises(ValueError, match="does not take"):
        pack(quantize_int4(random(40, 64)))


@pytest.mark.parametrize("n_tokens", [1, 3, 16, 17, 40])
@pytest.mark.parametrize(
    "form",
    ["float", "int8", "int4", "int4-packed", pytest.param("int4-tiles", marks=needs_kernels)],
)
def test_every_form_is_its_dequantized_matrix(form: str, n_tokens: int) -> None:
    weight, bias = random(1104, 256) / 16, random(1104, seed=1)
    stored: dict[str, torch.Tensor | Int8Weight | Int4Weight] = {
        "float": weight, "int8": quantize_int8(weight), "int4": quantize_int4(weight),
        "int4-packed": quantize_int4(weight), "int4-tiles": quantize_int4(weight[:1088]),
    }  # fmt: skip
    x = random(n_tokens, 256, seed=2)
    exact = stored[form]
    matrix = dequantize(exact)
    bias = bias[: len(matrix)]
    expected = x @ matrix.T + bias
    dtype = torch.float32 if form in ("float", "int4") else torch.bfloat16
    value: Stored = exact
    if isinstance(exact, Int4Weight) and form != "int4":
        value = pack(exact) if form == "int4-packed" else tile(exact)
    linear = make_linear(value, bias, dtype)
    assert linear.form == form
    found = linear(x.to(dtype))
    assert found.dtype == dtype
    assert found.shape == (n_tokens, len(matrix))
    bound = 1e-5 if dtype == torch.float32 else 6e-3
    assert (found.float() - expected).norm() / expected.norm() < bound
