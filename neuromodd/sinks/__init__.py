"""OUT: one file a destination of ticks."""
