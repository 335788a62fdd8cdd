"""Training: models, the two phases, export and verification. May import link; never serve."""
