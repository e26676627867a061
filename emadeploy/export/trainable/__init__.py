"""A quantised graph as something to train: the graph that ships, run by PyTorch, on the checkpoint's own weights."""
