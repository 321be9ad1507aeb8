"""Files on disk to frames, samples and batches."""
