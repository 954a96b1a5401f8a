"""A trained policy as a file that acts without hepo_isaac."""
