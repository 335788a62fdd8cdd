"""The digital link: numbers in, numbers out. Never imports torch."""
