"""Plain tar files of a data set, with an index for random access: how they are written, listed and checked."""
