"""Where the bytes of shards lie: a folder of this machine, or an object store with a cache beside it."""
