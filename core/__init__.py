"""What every package shares: errors, time, the canonical encoding."""
