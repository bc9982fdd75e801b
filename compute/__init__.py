"""What is computed, and whether to believe it."""
