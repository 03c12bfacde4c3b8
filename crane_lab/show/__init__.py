"""Figures, tables and sentences of the book."""
