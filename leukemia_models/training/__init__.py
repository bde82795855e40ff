"""The training loop and all it needs: optimizers, schedules, checkpoints, BatchNorm, training plans."""
