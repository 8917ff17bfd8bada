"""Our int4 kernels: the layout, exactness, and not being trusted without proof."""

import logging
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm import tiles
from llm.linear import make_linear
from llm.native import Kernels, compiled, has_amx, obstacle
from llm.packed import describe_kernels, int4_layout
from llm.quantize import Int4Weight, dequantize, quantize_int4
from llm.tiles import are_proved, can_tile, multiply, tile

needs_kernels = pytest.mark.skipif(obstacle() is not None, reason=f"{obstacle()}")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    are_proved.cache_clear()


def quantized(
    n_rows: int, n_columns: int, *, group_size: int = 32, has_zeros: bool = True, seed: int = 0
) -> Int4Weight:
    generator = torch.Generator().manual_seed(seed)
    weight = quantize_int4(torch.randn(n_rows, n_columns, generator=generator), group_size)
    return weight if has_zeros else Int4Weight(weight.codes, weight.scales, None)


def inputs(n_rows: int, n_columns: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows, n_columns, generator=generator).to(torch.bfloat16)


@pytest.fixture(params=["amx", "expanding"])
def many_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one of the two ways that many rows have."""
    if request.param == "amx" and not has_amx():
        pytest.skip("no AMX here")
    monkeypatch.setattr(tiles, "has_amx", lambda: request.param == "amx")


def test_a_code_has_the_place_that_the_layout_says() -> None:
    codes = torch.zeros(64, 64, dtype=torch.uint8)
    # row 32 + 16 + 3: second tile, second half, column 3; column 32 + 8 + 5: second group,
    # second step, third pair, odd
    codes[51, 45] = 9
    weight = Int4Weight(codes[:, 0::2] | codes[:, 1::2] << 4, torch.ones(64, 2), None)
    octets = tile(weight).octets[1, 1]
    assert octets.shape == (32 * 32 // 2 + 64,)
    place = (1 * 2 + 1) * 64 + 3 * 4 + 2 + 1  # vector, word, odd half, high byte
    assert int(octets[place]) == 9
    assert octets[:512].count_nonzero() == 1


def test_zeros_are_stored_only_where_there_are_some() -> None:
    with_zeros = quantized(64, 128)
    assert with_zeros.zeros is not None
    n_weights = 64 * 128
    all_zero = Int4Weight(with_zeros.codes, with_zeros.scales, torch.zeros_like(with_zeros.zeros))
    assert tile(with_zeros).octets.nbytes == 0.625 * n_weights
    assert tile(all_zero).octets.nbytes == 0.5625 * n_weights
    for group_size in (32, 64, 128):
        for has_zeros in (True, False):
            tiled = tile(quantized(64, 256, group_size=group_size, has_zeros=has_zeros))
            assert (tiled.group_size, tiled.has_zeros) == (group_size, has_zeros)
            assert (tiled.n_rows, tiled.n_columns) == (64, 256)


def test_what_does_not_fit_is_not_tiled() -> None:
    assert not can_tile(quantized(48, 64))
    odd = Int4Weight(torch.zeros(64, 40, dtype=torch.uint8), torch.ones(64, 1), None)
    assert not can_tile(odd)
    for weight in (quantized(48, 64), odd):
        with pytest.raises(ValueError, match="cannot be cut"):
            tile(weight)


@needs_kernels
@pytest.mark.parametrize("has_zeros", [True, False])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_rows_of_the_identity_give_the_matrix_to_the_bit(
    many_rows: None, group_size: int, has_zeros: bool
) -> None:
    weight = quantized(160, 640, group_size=group_size, has_zeros=has_zeros)
    tiled, matrix = tile(weight), dequantize(weight, torch.bfloat16)
    identity = torch.eye(640, dtype=torch.bfloat16)
    assert torch.equal(multiply(identity, tiled).T, matrix)
    few = torch.cat([multiply(rows, tiled) for rows in identity[:96].split(3)])
    assert torch.equal(few.T, matrix[:, :96])


@needs_kernels
@settings(max_examples=30, deadline=None)
@given(
    n_rows=st.integers(1, 70),
    n_tiles=st.integers(1, 9),
    n_groups=st.integers(1, 40),
    has_zeros=st.booleans(),
    spread=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_products_are_those_of_the_matrix_within_fp32_sums(
    n_rows: int, n_tiles: int, n_groups: int, has_zeros: bool, spread: float
) -> None:
    n_columns = 32 * n_groups
    weight = quantized(32 * n_tiles, n_columns, has_zeros=has_zeros, seed=n_rows)
    x = inputs(n_rows, n_columns, seed=n_tiles) * spread
    # up to 8 rows the matrix is not even rounded to bf16
    dtype = torch.float32 if n_rows <= 8 else torch.bfloat16
    matrix = dequantize(weight, dtype).double()
    exact = x.double() @ matrix.T
    absolute = x.double().abs() @ matrix.abs().T
    found = multiply(x, tile(weight)).double()
    # half a unit of bf16, and what sums of n numbers in fp32 may lose; the few-row kernel's terms
    # are a code and a zero, up to twice as large as their sum here
    bound = 2**-8 * exact.abs() + (2 * n_columns + 8) * 2**-24 * 3 * absolute
    assert ((found - exact).abs() <= bound).all()


@needs_kernels
def test_threads_do_not_change_a_bit(many_rows: None) -> None:
    weight = tile(quantized(1024, 1024))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([multiply(inputs(n, 1024), weight) for n in (1, 4, 7, 100)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@needs_kernels
def test_inputs_that_are_not_contiguous_are_taken() -> None:
    weight = quantized(64, 64)
    wide = inputs(20, 128)
    for n_rows in (2, 20):
        x = wide[:n_rows, ::2]
        assert torch.equal(multiply(x, tile(weight)), multiply(x.contiguous(), tile(weight)))


@needs_kernels
def test_a_scale_per_row_is_taken_at_the_width_of_chatglm3(many_rows: None) -> None:
    weight = quantized(64, 13696)
    per_row = Int4Weight(weight.codes, weight.scales[:, :1].contiguous(), None)
    assert can_tile(per_row)
    tiled = tile(per_row)
    assert tiled.group_size == 128
    matrix = dequantize(per_row)
    for n_rows in (1, 20):
        x = inputs(n_rows, 13696)
        found = make_linear(tiled, None, torch.bfloat16)(x).float()
        expected = x.float() @ matrix.T
        assert (found - expected).norm() < 6e-3 * expected.norm()


@needs_kernels
def test_kernels_that_compute_nonsense_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def other_form(group_size: int, has_zeros: bool, with_amx: bool) -> Kernels:
        return compiled(group_size, not has_zeros, with_amx)

    monkeypatch.setattr(tiles, "compiled", other_form)
    are_proved.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert int4_layout() == "torch"
    assert "wrong results" in caplog.text
    assert "failed their proof" in describe_kernels()


@needs_kernels
def test_kernels_that_do_not_compile_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llm.native.module", lambda *_: "define void @f() { nonsense }")
    monkeypatch.setattr(tiles, "compiled", compiled.__wrapped__)
    are_proved.cache_clear()
    assert not are_proved()
    assert "cannot be compiled" in caplog.text


def test_without_the_instructions_torch_is_used_and_said_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("llm.tiles", "llm.packed"):
        monkeypatch.setattr(f"{module}.obstacle", lambda: "no avx512bf16")
    are_proved.cache_clear()
    assert int4_layout() == "torch"
    assert describe_kernels().startswith("torch's packed int4")
    assert describe_kernels().endswith("(no avx512bf16)")
