"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa with a multilingual SentencePiece vocabulary in tokenizer.json."""

from dataclasses import replace

from loralet.models.families import roberta

FAMILY = replace(roberta.FAMILY, model_type="xlm-roberta", transformers="XLMRoberta")
