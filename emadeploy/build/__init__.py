"""Floor 2: from a graph to an artifact, one module per engine."""
