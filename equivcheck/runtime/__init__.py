"""The process: its device, generator, global state, files and imports."""
