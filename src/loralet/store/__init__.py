"""Files in and out: the hub, backbone checkpoints, tokenizers, adapter folders, option files."""
