"""The ingest that a LangChain tutorial shows: load, split, embed, FAISS. Run by `ingest_peers`.

Uses only the peer's packages, so that its environment needs none of ours. The chunk size is
searched for, before the clock starts, so that as many chunks come out as the other side has.
"""

import json
import sys
import time
from pathlib import Path

import psutil
from langchain_community.document_loaders import BSHTMLLoader, TextLoader
from langchain_community.vectorstores import FAISS
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_text_splitters import RecursiveCharacterTextSplitter


def load(folder: Path) -> list:
    documents = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".html":
            documents += BSHTMLLoader(str(path), open_encoding="utf-8").load()
        elif path.is_file():
            documents += TextLoader(str(path), autodetect_encoding=True).load()
    return documents


def split(documents: list, chunk_size: int) -> list:
    splitter = RecursiveCharacterTextSplitter(chunk_size=chunk_size, chunk_overlap=0)
    return splitter.split_documents(documents)


def size_for(documents: list, n_chunks: int) -> int:
    low, high = 50, 5000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(split(documents, middle)) > n_chunks else (low, middle)
    return high


def main() -> None:
    folder, model, n_chunks, output = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    chunk_size = size_for(load(folder), n_chunks)
    embeddings = HuggingFaceEmbeddings(model_name=model)
    embeddings.embed_query("load the model before the clock starts")
    started = time.perf_counter()
    chunks = split(load(folder), chunk_size)
    FAISS.from_documents(chunks, embeddings).save_local(output)
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
