"""Downloads, checkpoints and tokenizers."""
