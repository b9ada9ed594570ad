"""The contents of `pgrec demo`: a sample catalogue and a story that plays on it."""
