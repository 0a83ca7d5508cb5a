"""Training of the student network."""
