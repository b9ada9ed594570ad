"""What `pgrec demo` shows: a sample catalogue, and a story that is played on it."""
