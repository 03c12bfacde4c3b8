"""The method of the CRANE paper, one module per step (see `models` for where a run starts)."""
