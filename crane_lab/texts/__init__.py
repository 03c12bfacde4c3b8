"""Texts of each language, and what languages are called."""
