"""Studies of the method: readings, criteria, single ablations, conservation."""
