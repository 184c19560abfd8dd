"""A discrete-event staleness simulator of distributed training."""
