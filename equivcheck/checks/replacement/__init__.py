"""Checks of a replacement: its effect on the model that it is given."""
