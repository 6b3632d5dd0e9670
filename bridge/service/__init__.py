"""The bridge as a process: built from settings, started, reloaded, watched and stopped."""
