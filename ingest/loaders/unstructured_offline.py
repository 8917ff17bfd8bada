"""`unstructured` without a network and without telemetry; import it from here only.

Since it replaced NLTK by spaCy, `unstructured` fetches a model (en_core_web_sm) from github.com
when it first counts the sentences of a paragraph, and fails without a network; no setting
avoids that. Here a rule-based sentence splitter takes its place, which also knows Chinese full
stops. What is lost: parts of speech, by which `unstructured` tells narrative text from other
text, a difference we make no use of.

This reaches into ``unstructured.nlp.tokenize`` of version 0.27 (hence the upper bound in
pyproject.toml) and fails loudly if the functions have moved. It can go when a model can be
given by path.
"""

import os

# Read by the package when it is imported, so they stand before it.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("SCARF_NO_ANALYTICS", "true")
os.environ.setdefault("UNSTRUCTURED_DISABLE_NOTICE", "1")

import spacy
from unstructured.documents.elements import Element
from unstructured.nlp import tokenize
from unstructured.partition.docx import partition_docx

__all__ = ["Element", "partition_docx"]

_SENTENCE_ENDS = [".", "!", "?", "。", "！", "？", "；", "…"]


def _load_sentence_splitter() -> spacy.language.Language:
    splitter = spacy.blank("en")
    splitter.add_pipe("sentencizer", config={"punct_chars": _SENTENCE_ENDS})
    return splitter


if not callable(tokenize._load_spacy_model):
    raise ImportError("unstructured.nlp.tokenize has changed; see this module's docstring")
tokenize._load_spacy_model = _load_sentence_splitter
tokenize._get_nlp.cache_clear()
