"""Our parts inside a LangChain program, each on its own and without the rest of ours.

    python examples/langchain_parts.py

`search_with_a_store_of_langchain` takes our loader, splitter and embedder, and LangChain's vector
store. `ask_with_our_retriever` takes our retriever, that is, knowledge bases with both full text
and vectors, and LangChain's prompt and chat model. A stand-in for the model makes it run offline.
"""

import tempfile
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from ingest.embedder import MiniLMEmbedder
from ingest.langchain_splitter import ContentSplitter
from ingest.loaders.langchain import FileLoader
from ingest.sync import SyncOptions, sync_folders
from kb.config import Settings
from kb.embedder import Embedder
from kb.retrieval.langchain_retriever import HybridRetriever
from kb.wiring import Services
from llm.fake import FakeChatModel

DOCS = Path(__file__).parent / "docs"


def search_with_a_store_of_langchain(
    path: Path, question: str, embedder: Embeddings
) -> list[Document]:
    """Load and cut one file, and return the three chunks nearest to the question."""
    chunks = ContentSplitter().split_documents(FileLoader(path).load())
    store = InMemoryVectorStore.from_documents(chunks, embedder)
    return store.similarity_search(question, k=3)


def ask_with_our_retriever(services: Services, question: str, model: BaseChatModel) -> str:
    """Answer from the knowledge base `demo` with a chain of LangChain's own."""
    retriever = HybridRetriever(retriever=services.retriever, kbs=("demo",), top_k=5)
    prompt = ChatPromptTemplate.from_template(
        "Answer from these passages only.\n\n{passages}\n\nQuestion: {question}"
    )
    chain = (
        {"passages": retriever | numbered, "question": RunnablePassthrough()}
        | prompt
        | model
        | StrOutputParser()
    )
    return chain.invoke(question)


def numbered(documents: list[Document]) -> str:
    """Spell passages for the prompt, each with its number and where it is from."""
    return "\n\n".join(
        f"[{number}] {document.metadata['document']}, page {document.metadata['page'] or '-'}\n"
        f"{document.page_content.strip()}"
        for number, document in enumerate(documents, start=1)
    )


def fill(services: Services) -> None:
    base = services.create_base("demo")
    sync_folders(services.sync_parts, base, [DOCS / "operations-manual.md"], SyncOptions())


def main() -> None:
    embedder: Embedder = MiniLMEmbedder()
    found = search_with_a_store_of_langchain(
        DOCS / "travel-and-expenses.docx", "Who pays for a taxi at night?", embedder
    )
    print(found[0].metadata["heading"], "|", found[0].page_content.strip()[:70], "...")

    model = FakeChatModel(replies=("The pump takes 1.1 litres [1].",))
    with (
        tempfile.TemporaryDirectory() as home,
        Services.open(Settings(home=Path(home)), embedder=embedder) as services,
    ):
        fill(services)
        print(ask_with_our_retriever(services, "How much oil does the pump take?", model))
        print("the model was asked:", str(model.prompts[0][0].content)[:200], "...")


if __name__ == "__main__":
    main()
