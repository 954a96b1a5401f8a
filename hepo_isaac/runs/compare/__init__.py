"""Which method is better: statistics over finished runs."""
