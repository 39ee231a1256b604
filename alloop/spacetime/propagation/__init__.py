"""Long motion, segment by segment."""
