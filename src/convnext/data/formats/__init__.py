"""Every form that data come in, one file each: how it is recognised, and how its files become a data set."""
