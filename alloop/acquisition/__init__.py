"""Which frames are worth a label: spreads, their calibration, geometric novelty, selection."""
