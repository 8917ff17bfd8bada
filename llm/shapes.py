"""Shapes of the published models, for `kb doctor`, the benchmark and full-size tests."""

from llm.config import ModelConfig

_TWO_AND_THREE = ModelConfig(
    generation="chatglm3",
    n_layers=28,
    hidden_size=4096,
    n_heads=32,
    n_kv_heads=2,
    head_dim=128,
    ffn_size=13696,
    vocab_size=65024,
    context_window=8192,
    norm_eps=1e-5,
)

SHAPES: dict[str, ModelConfig] = {
    "chatglm-6b": ModelConfig(
        generation="chatglm",
        n_layers=28,
        hidden_size=4096,
        n_heads=32,
        n_kv_heads=32,
        head_dim=128,
        ffn_size=16384,
        vocab_size=130528,
        context_window=2048,
        norm_eps=1e-5,
        has_linear_bias=True,
    ),
    "chatglm2-6b": _TWO_AND_THREE,
    "chatglm3-6b": _TWO_AND_THREE,
    "glm-4-9b-chat": ModelConfig(
        generation="glm4",
        n_layers=40,
        hidden_size=4096,
        n_heads=32,
        n_kv_heads=2,
        head_dim=128,
        ffn_size=13696,
        vocab_size=151552,
        context_window=131072,
        norm_eps=1.5625e-07,
        rope_base=5_000_000.0,
    ),
}
