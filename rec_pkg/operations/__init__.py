"""Operations on a deployment as a whole: calibrate, release, vacuum, examine."""
