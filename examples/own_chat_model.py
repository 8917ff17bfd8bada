"""Let any LangChain chat model write the answers; retrieval, refusal and proof stay ours.

    python examples/own_chat_model.py

A stand-in that always says the same makes this run offline. A real model takes its place:

    from langchain_openai import ChatOpenAI
    model = ChatOpenAI(model="my-model", base_url="http://127.0.0.1:8080/v1", api_key="none")

What the model says is not trusted: each sentence is aligned to the passages, and one whose
numbers, dates or quoted names do not stand there is marked. The stand-in makes one such mistake.
"""

import tempfile
from pathlib import Path

from langchain_core.language_models import BaseChatModel

from ingest.sync import SyncOptions, sync_folders
from kb.config import Settings
from kb.embedder import Embedder
from kb.records import Answer, Question
from kb.wiring import Services
from llm.fake import FakeChatModel

MANUAL = Path(__file__).parent / "docs" / "operations-manual.md"
QUESTION = "How much oil does the pump take?"
SAYS = "Fill the pump with 1.1 litres of oil QY-OIL-46 [1]. The pump weighs 99 kg [1]."


def answer(
    home: Path, question: str, model: BaseChatModel, embedder: Embedder | None = None
) -> Answer:
    """Ingest the manual into `home`, then have `model` answer from it.

    `embedder` takes the place of the default one; both it and the model may come from LangChain.
    """
    with Services.open(Settings(home=home), embedder=embedder, chat_model=model) as services:
        base = services.create_base("manuals")
        sync_folders(services.sync_parts, base, [MANUAL], SyncOptions())
        return services.chain.invoke(Question(question, kbs=("manuals",), top_k=5))


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        reply = answer(Path(home), QUESTION, FakeChatModel(replies=(SAYS,)))
    print(reply.text)
    for citation in reply.citations:
        verdict = "proven" if citation.supported else "NOT supported"
        print(f"{citation.marker} {verdict}: {citation.document}: {citation.quote!r}")


if __name__ == "__main__":
    main()
