"""The stages of an export put together: graph, calibration, engine, and the judgement of what came out."""
