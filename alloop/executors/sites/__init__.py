"""Site files: where tasks run. They hold no science."""
