"""loralet: many LoRA adapters on one tiny frozen encoder, trained side by side."""

__version__ = "0.1.0"
