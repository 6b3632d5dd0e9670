"""The data path in one process: real parts over socket pairs, a scripted broker and far end, no thread, no sleep."""
