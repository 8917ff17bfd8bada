"""Chat models that run in this process. Imports nothing of ours and could be lifted out whole.

Holds the offline fake used by tests and examples; ChatGLM itself is not here yet.
"""
