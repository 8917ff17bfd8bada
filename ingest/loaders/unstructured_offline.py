"""Make `unstructured` work without a network and without telemetry.

Since it replaced NLTK by spaCy, `unstructured` fetches a model (en_core_web_sm) from github.com
when it first counts the sentences of a paragraph, and fails without a network; no setting
avoids that. `install` puts a rule-based sentence splitter in its place, which also knows
Chinese full stops. What is lost: parts of speech, by which `unstructured` tells narrative text
from other text, a difference we make no use of.

This reaches into ``unstructured.nlp.tokenize`` of version 0.27 (hence the upper bound in
pyproject.toml); it can go when a model can be given by path. `install` fails loudly if the
functions have moved.
"""

import os

# Read when the package is imported; the loaders import this module first.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("SCARF_NO_ANALYTICS", "true")
os.environ.setdefault("UNSTRUCTURED_DISABLE_NOTICE", "1")

_SENTENCE_ENDS = [".", "!", "?", "。", "！", "？", "；", "…"]


def install() -> None:
    """Replace the model that would be downloaded. Harmless when repeated.

    Raises:
        AttributeError: this version of `unstructured` is not the one this was written for.
    """
    import spacy
    from unstructured.nlp import tokenize

    def load_sentence_splitter() -> spacy.language.Language:
        splitter = spacy.blank("en")
        splitter.add_pipe("sentencizer", config={"punct_chars": _SENTENCE_ENDS})
        return splitter

    tokenize._get_nlp.cache_clear()
    if not callable(tokenize._load_spacy_model):
        raise AttributeError("unstructured.nlp.tokenize._load_spacy_model is no function")
    tokenize._load_spacy_model = load_sentence_splitter
