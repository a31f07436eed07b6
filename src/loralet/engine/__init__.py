"""Training, evaluation, packs and run folders."""
