"""The same chunks into a txtai index with content. Run by `ingest_peers`."""

import json
import sys
import time
from pathlib import Path

import psutil
from langchain_community.document_loaders import BSHTMLLoader, TextLoader
from langchain_text_splitters import RecursiveCharacterTextSplitter
from txtai import Embeddings


def load(folder: Path) -> list:
    documents = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".html":
            documents += BSHTMLLoader(str(path), open_encoding="utf-8").load()
        elif path.is_file():
            documents += TextLoader(str(path), autodetect_encoding=True).load()
    return documents


def main() -> None:
    folder, model, chunk_size, output = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    embeddings = Embeddings(path=model, content=True)
    embeddings.index(["load the model before the clock starts"])
    started = time.perf_counter()
    splitter = RecursiveCharacterTextSplitter(chunk_size=chunk_size, chunk_overlap=0)
    chunks = splitter.split_documents(load(Path(folder)))
    embeddings.index([chunk.page_content for chunk in chunks])
    embeddings.save(output)
    seconds = time.perf_counter() - started
    peak = psutil.Process().memory_info().rss / 2**30
    print(
        json.dumps(
            {
                "chunks": len(chunks),
                "chunk_size": chunk_size,
                "seconds": round(seconds, 2),
                "memory_gb": round(peak, 2),
            }
        )
    )


main()
