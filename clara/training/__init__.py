"""Training: records, batches, losses and the loop of the three stages; knows no queue, no HTTP."""
