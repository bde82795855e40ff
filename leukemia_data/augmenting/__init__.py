"""Random augmentation: its parameters, its draws, and whole batches on the device."""
