"""Segmentation: a class for every pixel. UperNet on any backbone with four stages."""
