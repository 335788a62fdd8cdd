"""Other servers, a file each: how it is started, and what it is. What runs inside them stands beside it as *_model.py."""
