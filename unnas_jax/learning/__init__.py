"""What every training shares: optimizers, batches on the devices, metrics, progress."""
