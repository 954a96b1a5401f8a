"""Many runs: their record, and which of them are the same."""
