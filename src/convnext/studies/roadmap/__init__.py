"""The way from ResNet to ConvNeXt, trained step by step on a person's own data."""
