"""Engines that score, generate and judge what a model says."""
