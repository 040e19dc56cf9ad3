"""`neuromodd doctor`: what this host can measure and why not the rest, and whether a daemon would do well."""
