"""Our hybrid retriever as a LangChain `BaseRetriever`, for use in any LangChain program."""

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from kb.records import Question
from kb.retrieval.retrieve import Retriever


class HybridRetriever(BaseRetriever):
    """Finds passages in knowledge bases; each `Document` carries its span for a citation.

    Metadata: everything of ``kb search --json`` but the text, so that
    ``document_text[start:end] == page_content``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Retriever
    kbs: tuple[str, ...]
    top_k: int = 5

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        hits = self.retriever.search(Question(query, self.kbs, self.top_k)).hits
        documents = []
        for hit in hits:
            metadata: dict[str, Any] = hit.to_dict()
            text = metadata.pop("text")
            documents.append(Document(page_content=text, metadata=metadata))
        return documents
