"""IN: one file a source of telemetry, and the sampler that reads them on a thread of its own."""
