"""The training loop: optimizers, schedules, checkpoints, BatchNorm, training plans."""
