"""The figures that the paper prints, beside what is computed here."""
