"""Hits and passages made by hand, for tests of what happens after retrieval."""

from kb.records import ChannelScores, Chunk, Hit, Passage


def make_hit(
    text: str,
    *,
    rank: int = 1,
    heading: str = "",
    document: str = "handbook.md",
    start: int = 0,
    page: int | None = None,
    dense: float | None = None,
) -> Hit:
    """Return a hit whose chunk is `text`, at `start` of its document."""
    chunk = Chunk(
        id=rank,
        kb_id="k" * 32,
        document_id=document,
        version_id=1,
        position=0,
        start=start,
        end=start + len(text),
        page=page,
        heading=heading,
        text=text,
    )
    scores = ChannelScores(dense=dense, lexical=1.0, rerank=None)
    return Hit(
        rank=rank, score=1 / rank, kb="test", document=document, chunk=chunk, channels=scores
    )


def make_passages(*texts: str, pages: tuple[int, ...] = ()) -> list[Passage]:
    """Return passages numbered from 1, each a document of its own."""
    return [
        Passage(number=n, hit=make_hit(text, rank=n, document=f"{n}.md"), pages=pages)
        for n, text in enumerate(texts, start=1)
    ]
