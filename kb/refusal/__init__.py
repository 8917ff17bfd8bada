"""When not to answer: the chance that the passages hold an answer, and its threshold."""
