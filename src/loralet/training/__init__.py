"""Training of adapters on a loaded backbone and tokenised rows."""
