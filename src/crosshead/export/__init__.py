"""Models as files that run without this library, and the way back from such a file to answers without PyTorch.

``about``, ``prepare``, ``answers`` and ``runtime`` import neither torch nor anything that needs it.
"""
