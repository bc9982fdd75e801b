"""Whether to believe a result."""
