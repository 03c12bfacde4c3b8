"""Fine-tuning of chosen neurons, and how it is scored (the LSN paper's Tables 3, 7 and 8)."""
