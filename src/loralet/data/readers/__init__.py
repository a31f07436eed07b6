"""Readers of tables: delimited text, JSON, and columnar formats. What is read otherwise than written is announced."""
