"""The same tokens on a GPU as on the CPU. Skipped where there is none."""

import pytest
import torch

from llm.config import Generation
from llm.engine import Engine, NewToken
from llm.parameters import Stored, assemble
from llm.quantize import Int4Weight, Int8Weight, quantize_int4, quantize_int8
from llm.sampler import SamplingParams
from tests.llm.models import random_parameters, small_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is here")


def moved(value: Stored, device: str) -> Stored:
    if isinstance(value, Int8Weight):
        return Int8Weight(value.codes.to(device), value.scales.to(device))
    if isinstance(value, Int4Weight):
        assert value.zeros is not None
        return Int4Weight(*(part.to(device) for part in (value.codes, value.scales, value.zeros)))
    return value.to(device)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("generation", ["chatglm", "chatglm3"])
def test_greedy_tokens_are_equal(generation: Generation, bits: int) -> None:
    config = small_config(generation, context_window=256)
    quantize = {4: quantize_int4, 8: quantize_int8}
    matrices = ("qkv", "attention_out", "ffn_in", "ffn_out")
    values: dict[str, Stored] = {
        name: quantize[bits](value)
        if bits in quantize and name.rsplit(".", 1)[-1] in matrices
        else value
        for name, value in random_parameters(config).items()
    }
    found = []
    for device in ("cpu", "cuda"):

        def get(name: str, device: str = device) -> Stored:
            return moved(values[name], device)

        with Engine(assemble(config, get, dtype=torch.float32, device=device)) as engine:
            request = engine.submit([5, 9, 30, 2, 17], SamplingParams(40, temperature=0))
            found.append([event.token_id for event in request if isinstance(event, NewToken)])
    assert found[0] == found[1]
