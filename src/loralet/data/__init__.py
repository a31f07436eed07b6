"""From a table of texts to batches of token ids."""
