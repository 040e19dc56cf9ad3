"""`neuromodd detect`: surprise without a daemon, over tables of measurements and over recordings."""
