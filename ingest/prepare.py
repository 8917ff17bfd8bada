"""From a parsed file to chunks that are ready for their transaction. Pure functions."""

from ingest.splitter import split
from kb.embedder import embedded_text, text_hash
from kb.records import LoadedDocument
from kb.storage.documents import PreparedChunk, PreparedDocument
from kb.text.pages import page_at
from kb.text.terms import index_terms


def prepare(path: str, stat_key: str, loaded: LoadedDocument) -> tuple[PreparedDocument, list[str]]:
    """Split a parsed file.

    Returns:
        The document, and for each of its chunks the exact string to embed. A document without
        any visible character has no chunks.
    """
    if not loaded.text.strip():
        return PreparedDocument(path, stat_key, loaded, chunks=()), []
    chunks: list[PreparedChunk] = []
    strings: list[str] = []
    for span in split(loaded.text, loaded.headings):
        text = loaded.text[span.start : span.end]
        string = embedded_text(span.heading, text)
        strings.append(string)
        chunks.append(
            PreparedChunk(
                start=span.start,
                end=span.end,
                page=page_at(loaded.pages, span.start),
                heading=span.heading,
                text_hash=text_hash(string),
                heading_terms=index_terms(span.heading),
                text_terms=index_terms(text),
            )
        )
    return PreparedDocument(path, stat_key, loaded, tuple(chunks)), strings
