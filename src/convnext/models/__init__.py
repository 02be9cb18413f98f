"""Networks: ConvNeXt and its baselines, their weights in every format, their parameters and multiply-accumulates."""
