"""What a person reads after a run: one self-contained page, written from the files of the run's folder."""
