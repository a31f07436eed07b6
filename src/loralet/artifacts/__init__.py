"""Adapter folders: read, written, checked, described; adapters of PEFT in and out."""
