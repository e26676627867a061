"""Floor 3: INT8 from real frames: recipes, frames, ranges, and Q/DQ, one module per engine."""
