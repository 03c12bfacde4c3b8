"""What runs, measures and shows the method of crane_core."""
