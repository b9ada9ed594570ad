"""What is done to a deployment as a whole: calibrate, release, vacuum, examine."""
