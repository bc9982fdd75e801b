"""What is kept about peers: receipts, and the local book."""
