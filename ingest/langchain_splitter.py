"""Our splitter as a LangChain `TextSplitter`."""

from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_text_splitters import TextSplitter

from ingest.splitter import MAX_WIDTH, split
from kb.records import Heading


class ContentSplitter(TextSplitter):
    """Cuts at places that depend only on nearby text; see `ingest/splitter.py`.

    Chunks do not overlap and are verbatim: ``text[start_index:][:len(chunk)] == chunk``. Where
    a document has `headings` in its metadata (as `FileLoader` gives them), each chunk gets its
    path as `heading`. `headings` and `pages` are about the whole document and are left out of
    the chunks' metadata.
    """

    def __init__(self) -> None:
        super().__init__(chunk_size=MAX_WIDTH, chunk_overlap=0, add_start_index=True)

    def split_text(self, text: str) -> list[str]:
        """Return the chunks of a text without headings; joined they are the text."""
        return [text[span.start : span.end] for span in split(text, ())]

    def create_documents(
        self, texts: list[str], metadatas: list[dict[Any, Any]] | None = None
    ) -> list[Document]:
        """Cut each text; the chunks' metadata gain `start_index` and, if any, `heading`."""
        chunks: list[Document] = []
        for text, metadata in zip(texts, metadatas or [{} for _ in texts], strict=True):
            shared = {k: v for k, v in metadata.items() if k not in ("headings", "pages")}
            for span in split(text, _headings(metadata.get("headings", ()))):
                own: dict[str, Any] = {"start_index": span.start}
                if span.heading:
                    own["heading"] = span.heading
                chunks.append(
                    Document(page_content=text[span.start : span.end], metadata=shared | own)
                )
        return chunks

    def split_documents(self, documents: Iterable[Document]) -> list[Document]:
        """Cut each document; as `create_documents`."""
        documents = list(documents)
        return self.create_documents(
            [document.page_content for document in documents],
            [document.metadata for document in documents],
        )


def _headings(found: Sequence[dict[str, Any]]) -> list[Heading]:
    return [Heading(heading["start"], heading["level"], heading["title"]) for heading in found]
