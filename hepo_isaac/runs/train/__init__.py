"""Training: what happens while a run goes on."""
