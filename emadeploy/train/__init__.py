"""Floor 3: training. Losses, batches, the Lightning module and the run that leaves a Checkpoint behind."""
