"""Questions asked of trained and untrained networks: the roadmap, the paper, robustness, a benchmark."""
