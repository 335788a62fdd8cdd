"""A radio at work: traffic for it, figures of it, its calibration, and its return when it was lost."""
