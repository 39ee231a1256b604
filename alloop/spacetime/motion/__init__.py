"""From internal motion to motion in space."""
