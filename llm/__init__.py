"""ChatGLM in this process. Imports nothing of ours and could be lifted out whole.

`chat_model.ChatGLM` is the front door for LangChain programs, `convert.convert` makes a model
folder from a published checkpoint. `fake` is a chat model without weights, for tests.
"""
