"""How a node comes up, and what it answers to its operator."""
