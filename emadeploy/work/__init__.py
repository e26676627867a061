"""Floor 2: what a graph takes, told from the graph alone: layers, multiplications, bytes, memory. Nothing is run."""
