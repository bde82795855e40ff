"""Training: settings, optimizers, schedules, steps, epochs, checkpoints."""
