"""ChatGLM without the knowledge base: convert a published folder once, then use it in LangChain.

    python examples/chatglm.py ./chatglm3-6b "你好"

The first run quantizes the checkpoint to 4 bits beside it (minutes); later runs start in seconds.
Nothing of `kb` is imported: `llm` stands on its own.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from langchain_core.messages import HumanMessage, SystemMessage

from llm.chat_model import ChatGLM
from llm.convert import ConvertOptions, convert


def converted(checkpoint: Path) -> Path:
    """Return the 4-bit model beside a checkpoint folder, made if it is not there yet."""
    folder = checkpoint.with_name(f"{checkpoint.name}-int4")
    if not folder.is_dir():
        report = convert(checkpoint, folder, ConvertOptions(bits=4))
        print(f"quantized; logits differ by {report['logits']['relative_error']:.1%}")
    return folder


def reply(folder: Path, question: str, max_new_tokens: int = 512) -> Iterator[str]:
    """Yield the answer piece by piece."""
    model = ChatGLM.load(folder, temperature=0.0, max_new_tokens=max_new_tokens)
    try:
        for chunk in model.stream([SystemMessage("Be brief."), HumanMessage(question)]):
            yield chunk.text
    finally:
        model.close()


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/chatglm.py CHECKPOINT_FOLDER QUESTION")
    for piece in reply(converted(Path(sys.argv[1])), sys.argv[2]):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
