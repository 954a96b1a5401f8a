"""The same actions on two engines."""
