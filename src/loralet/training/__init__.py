"""Training: from a loaded backbone and tokenised rows to trained adapters."""
