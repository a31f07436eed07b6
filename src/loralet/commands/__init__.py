"""The commands, one module each. They import torch, so the command line imports them only when they run."""
