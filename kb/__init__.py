"""The domain: storage, indexes, retrieval, answers and citations.

Imports nothing of `llm`, `ingest` or `api`; only the edge (`kb.cli`, `kb.wiring`) may.
"""

__version__ = "0.1.0"
