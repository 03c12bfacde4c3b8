"""What runs, measures and shows the method of crane_core."""

# Before anything of ours is loaded: what is edited later is told from what runs.
from crane_lab.store import sources as sources
