"""Text to token ids and back, for the four generations of ChatGLM."""

from llm.tokenizers.base import Tokenizer
from llm.tokenizers.load import load_tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]
