"""Data: frames with ground truth, made (`rooms`) or read from disk."""
