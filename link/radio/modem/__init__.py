"""Symbols to samples and back: frames, pulses, and the receiver that finds and equalises them."""
