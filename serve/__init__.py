"""The inference server and its client. May import link; never train, never torch."""
