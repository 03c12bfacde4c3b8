"""The testbed: a small trilingual world, its text, the model trained on it, and the tasks."""
