"""rl-games agents that put the pieces of ``methods`` to work."""
