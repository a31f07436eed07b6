"""The commands behind the front door, one file each; they import torch, so the front door imports them only when called."""
