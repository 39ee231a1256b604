"""Where tasks run: in the driver's own process, or on worker processes through Parsl."""
