"""The pure part: frames, modulators, neurons, engine. No clock, no I/O, no asyncio, no logging."""
