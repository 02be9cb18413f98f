"""The printed numbers of arXiv 2201.03545 (version 2), row by row, and which of them are in doubt.

Only numbers; `published` says what the columns are. None: the table leaves the cell empty, or we do not have it.
"""

Cell = str | float | None

# Table 1. network, our name, trained on, px, parameters (1e6), MACs (1e9), images/s on a V100, top-1 (%)
TABLE_1: tuple[tuple[Cell, ...], ...] = (
    ("RegNetY-16G", "regnety_16g", "1K", 224, 84, 16.0, 334.7, 82.9),
    ("EffNet-B7", "efficientnet_b7", "1K", 600, 66, 37.0, 55.1, 84.3),
    ("EffNetV2-L", "efficientnetv2_l", "1K", 480, 120, 53.0, 83.7, 85.7),
    ("DeiT-S", "deit_small", "1K", 224, 22, 4.6, 978.5, 79.8),
    ("DeiT-B", "deit_base", "1K", 224, 87, 17.6, 302.1, 81.8),
    ("Swin-T", "swin_tiny", "1K", 224, 28, 4.5, 757.9, 81.3),
    ("ConvNeXt-T", "tiny", "1K", 224, 29, 4.5, 774.7, 82.1),
    ("Swin-S", "swin_small", "1K", 224, 50, 8.7, 436.7, 83.0),
    ("ConvNeXt-S", "small", "1K", 224, 50, 8.7, 447.1, 83.1),
    ("Swin-B", "swin_base", "1K", 224, 88, 15.4, 286.6, 83.5),
    ("ConvNeXt-B", "base", "1K", 224, 89, 15.4, 292.1, 83.8),
    ("Swin-B", "swin_base_384", "1K", 384, 88, 47.1, 85.1, 84.5),
    ("ConvNeXt-B", "base", "1K", 384, 89, 45.0, 95.7, 85.1),
    ("ConvNeXt-L", "large", "1K", 224, 198, 34.4, 146.8, 84.3),
    ("ConvNeXt-L", "large", "1K", 384, 198, 101.0, 50.4, 85.5),
    ("R-101x3", "timm:resnetv2_101x3_bit", "22K", 384, 388, 204.6, None, 84.4),
    ("R-152x4", "timm:resnetv2_152x4_bit", "22K", 480, 937, 840.5, None, 85.4),
    ("EffNetV2-L", "efficientnetv2_l", "22K", 480, 120, 53.0, 83.7, 86.8),
    ("EffNetV2-XL", "timm:tf_efficientnetv2_xl", "22K", 480, 208, 94.0, 56.5, 87.3),
    ("ViT-B/16", "vit_base", "22K", 384, 87, 55.5, 93.1, 85.4),
    ("ViT-L/16", "vit_large", "22K", 384, 305, 191.1, 28.5, 86.8),
    ("ConvNeXt-T", "tiny", "22K", 224, 29, 4.5, 774.7, 82.9),
    ("ConvNeXt-T", "tiny", "22K", 384, 29, 13.1, 282.8, 84.1),
    ("ConvNeXt-S", "small", "22K", 224, 50, 8.7, 447.1, 84.6),
    ("ConvNeXt-S", "small", "22K", 384, 50, 25.5, 163.5, 85.8),
    ("Swin-B", "swin_base", "22K", 224, 88, 15.4, 286.6, 85.2),
    ("ConvNeXt-B", "base", "22K", 224, 89, 15.4, 292.1, 85.8),
    ("Swin-B", "swin_base_384", "22K", 384, 88, 47.0, 85.1, 86.4),
    ("ConvNeXt-B", "base", "22K", 384, 89, 45.1, 95.7, 86.8),
    ("Swin-L", "swin_large", "22K", 224, 197, 34.5, 145.0, 86.3),
    ("ConvNeXt-L", "large", "22K", 224, 198, 34.4, 146.8, 86.6),
    ("Swin-L", "swin_large_384", "22K", 384, 197, 103.9, 46.0, 87.3),
    ("ConvNeXt-L", "large", "22K", 384, 198, 101.0, 50.4, 87.5),
    ("ConvNeXt-XL", "xlarge", "22K", 224, 350, 60.9, 89.3, 87.0),
    ("ConvNeXt-XL", "xlarge", "22K", 384, 350, 179.0, 30.2, 87.8),
)

# Table 2. network, our name, px, parameters (1e6), MACs (1e9), images/s, training memory (GB), top-1 (%)
TABLE_2: tuple[tuple[Cell, ...], ...] = (
    ("ViT-S", "vit_small", 224, 22, 4.6, 978.5, 4.9, 79.8),
    ("ConvNeXt-S (iso.)", "iso_small", 224, 22, 4.3, 1038.7, 4.2, 79.7),
    ("ViT-B", "vit_base", 224, 87, 17.6, 302.1, 9.1, 81.8),
    ("ConvNeXt-B (iso.)", "iso_base", 224, 87, 16.9, 320.1, 7.7, 82.0),
    ("ViT-L", "vit_large", 224, 304, 61.6, 93.1, 22.5, 82.6),
    ("ConvNeXt-L (iso.)", "iso_large", 224, 306, 59.7, 94.4, 20.4, 82.6),
)

# Table 3. backbone, our name, trained on, detector, FLOPs (1e9, whole detector), images/s on an A100,
# box AP, AP50, AP75, mask AP, AP50, AP75
TABLE_3: tuple[tuple[Cell, ...], ...] = (
    ("Swin-T", "swin_tiny", "1K", "Mask R-CNN", 267, 23.1, 46.0, 68.1, 50.3, 41.6, 65.1, 44.9),
    ("ConvNeXt-T", "tiny", "1K", "Mask R-CNN", 262, 25.6, 46.2, 67.9, 50.8, 41.7, 65.0, 44.9),
    ("ResNet-50", "resnet50", "1K", "Cascade", 739, 16.2, 46.3, 64.3, 50.5, 40.1, 61.7, 43.4),
    ("X101-32", "resnext101_32x4d", "1K", "Cascade", 819, 13.8, 48.1, 66.5, 52.4, 41.6, 63.9, 45.2),
    ("X101-64", "resnext101_64x4d", "1K", "Cascade", 972, 12.6, 48.3, 66.4, 52.3, 41.7, 64.0, 45.1),
    ("Swin-T", "swin_tiny", "1K", "Cascade", 745, 12.2, 50.4, 69.2, 54.7, 43.7, 66.6, 47.3),
    ("ConvNeXt-T", "tiny", "1K", "Cascade", 741, 13.5, 50.4, 69.1, 54.8, 43.7, 66.5, 47.3),
    ("Swin-S", "swin_small", "1K", "Cascade", 838, 11.4, 51.9, 70.7, 56.3, 45.0, 68.2, 48.8),
    ("ConvNeXt-S", "small", "1K", "Cascade", 827, 12.0, 51.9, 70.8, 56.5, 45.0, 68.4, 49.1),
    ("Swin-B", "swin_base", "1K", "Cascade", 982, 10.7, 51.9, 70.5, 56.4, 45.0, 68.1, 48.9),
    ("ConvNeXt-B", "base", "1K", "Cascade", 964, 11.4, 52.7, 71.3, 57.2, 45.6, 68.9, 49.5),
    ("Swin-B", "swin_base", "22K", "Cascade", 982, 10.7, 53.0, 71.8, 57.5, 45.8, 69.4, 49.7),
    ("ConvNeXt-B", "base", "22K", "Cascade", 964, 11.5, 54.0, 73.1, 58.8, 46.9, 70.6, 51.3),
    ("Swin-L", "swin_large", "22K", "Cascade", 1382, 9.2, 53.9, 72.4, 58.8, 46.7, 70.1, 50.8),
    ("ConvNeXt-L", "large", "22K", "Cascade", 1354, 10.0, 54.8, 73.8, 59.8, 47.6, 71.3, 51.7),
    ("ConvNeXt-XL", "xlarge", "22K", "Cascade", 1898, 8.6, 55.2, 74.2, 59.9, 47.7, 71.6, 52.2),
)

# Table 4. backbone, our name, trained on, crop (px), mIoU at several scales (%), parameters (1e6) and FLOPs (1e9) of
# the whole UperNet
TABLE_4: tuple[tuple[Cell, ...], ...] = (
    ("Swin-T", "swin_tiny", "1K", 512, 45.8, 60, 945),
    ("ConvNeXt-T", "tiny", "1K", 512, 46.7, 60, 939),
    ("Swin-S", "swin_small", "1K", 512, 49.5, 81, 1038),
    ("ConvNeXt-S", "small", "1K", 512, 49.6, 82, 1027),
    ("Swin-B", "swin_base", "1K", 512, 49.7, 121, 1188),
    ("ConvNeXt-B", "base", "1K", 512, 49.9, 122, 1170),
    ("Swin-B", "swin_base", "22K", 640, 51.7, 121, 1841),
    ("ConvNeXt-B", "base", "22K", 640, 53.1, 122, 1828),
    ("Swin-L", "swin_large", "22K", 640, 53.5, 234, 2468),
    ("ConvNeXt-L", "large", "22K", 640, 53.7, 235, 2458),
    ("ConvNeXt-XL", "xlarge", "22K", 640, 54.0, 391, 3335),
)

# Table 8. network, our name, trained on, px, MACs (1e9), parameters (1e6), top-1 (%), mCE on ImageNet-C (%, lower is
# better), error on C-bar (%, lower is better), top-1 (%) on ImageNet-A, -R and -Sketch
TABLE_8: tuple[tuple[Cell, ...], ...] = (
    ("ResNet-50", "resnet50", "1K", 224, 4.1, 25.6, 76.1, 76.7, 57.7, 0.0, 36.1, 24.1),
    ("Swin-T", "swin_tiny", "1K", 224, 4.5, 28.3, 81.2, 62.0, None, 21.6, 41.3, 29.1),
    ("RVT-S*", None, "1K", 224, 4.7, 23.3, 81.9, 49.4, 37.5, 25.7, 47.7, 34.7),
    ("ConvNeXt-T", "tiny", "1K", 224, 4.5, 28.6, 82.1, 53.2, 40.0, 24.2, 47.2, 33.8),
    ("Swin-B", "swin_base", "1K", 224, 15.4, 87.8, 83.4, 54.4, None, 35.8, 46.6, 32.4),
    ("RVT-B*", None, "1K", 224, 17.7, 91.8, 82.6, 46.8, 30.8, 28.5, 48.7, 36.0),
    ("ConvNeXt-B", "base", "1K", 224, 15.4, 88.6, 83.8, 46.8, 34.4, 36.7, 51.3, 38.2),
    ("ConvNeXt-B", "base", "22K", 384, 45.1, 88.6, 86.8, 43.1, 30.7, 62.3, 64.9, 51.6),
    ("ConvNeXt-L", "large", "22K", 384, 101.0, 197.8, 87.5, 40.2, 29.9, 65.5, 66.7, 52.8),
    ("ConvNeXt-XL", "xlarge", "22K", 384, 179.0, 350.2, 87.8, 38.8, 27.1, 69.3, 68.2, 55.0),
)

# Table 12. network, our name, px, MACs (1e9), images/s on an A100 (TF32, channels last)
TABLE_12: tuple[tuple[Cell, ...], ...] = (
    ("Swin-T", "swin_tiny", 224, None, 1325.6),
    ("ConvNeXt-T", "tiny", 224, None, 1943.5),
    ("Swin-S", "swin_small", 224, None, 857.3),
    ("ConvNeXt-S", "small", 224, None, 1275.3),
    ("Swin-B", "swin_base", 224, None, 662.8),
    ("ConvNeXt-B", "base", 224, None, 969.0),
    ("Swin-B", "swin_base_384", 384, None, 242.5),
    ("ConvNeXt-B", "base", 384, 45.0, 336.6),
    ("Swin-L", "swin_large", 224, None, 435.9),
    ("ConvNeXt-L", "large", 224, None, 611.5),
    ("Swin-L", "swin_large_384", 384, None, 157.9),
    ("ConvNeXt-L", "large", 384, None, 211.4),
    ("ConvNeXt-XL", "xlarge", 224, None, 424.4),
    ("ConvNeXt-XL", "xlarge", 384, None, 147.4),
)

_B384 = "tables 1 (22K) and 8 print 45.1"
_SWIN = "why is not known; the other rows of Swin agree"
_OWN = "from that network's own paper, which may count differently"
# (table, network with its detector where the table has one, trained on, px or None where the table has none, column):
# (what is counted here, why we doubt)
DOUBTS: dict[tuple[str, str, str | None, int | None, str], tuple[float, str]] = {
    ("1", "ConvNeXt-B", "1K", 384, "gmacs"): (45.1, _B384),
    ("12", "ConvNeXt-B", None, 384, "gmacs"): (45.1, _B384),
    ("1", "Swin-B", "22K", 384, "gmacs"): (47.1, "the 1K block prints 47.1"),
    ("1", "RegNetY-16G", "1K", 224, "gmacs"): (15.9, "that network's own paper prints 15.9"),
    ("1", "EffNet-B7", "1K", 600, "gmacs"): (37.7, _OWN),
    ("1", "EffNetV2-L", "1K", 480, "gmacs"): (56.1, _OWN),
    ("1", "EffNetV2-L", "1K", 480, "params_m"): (119, _OWN),
    ("1", "EffNetV2-L", "22K", 480, "gmacs"): (56.1, _OWN),
    ("1", "EffNetV2-L", "22K", 480, "params_m"): (119, _OWN),
    ("1", "EffNetV2-XL", "22K", 480, "gmacs"): (82.1, "most likely at 512 px, where it has 93.4"),
    ("1", "R-101x3", "22K", 384, "gmacs"): (
        204.2,
        "convolutions and head are 204.21 G; what the rest is, is not known",
    ),
    ("1", "R-152x4", "22K", 480, "gmacs"): (
        839.3,
        "convolutions and head are 839.25 G; what the rest is, is not known",
    ),
    ("2", "ConvNeXt-S (iso.)", None, 224, "top1"): (78.7, "the authors' repository prints 78.7; the paper is likelier"),
    ("3", "Swin-T Cascade", "1K", None, "detector_gflops"): (746, "745.6 seems to be cut off instead of rounded"),
    ("3", "Swin-L Cascade", "22K", None, "detector_gflops"): (1392, _SWIN),
    ("4", "Swin-B", "22K", None, "segmenter_gflops"): (1840, _SWIN),
    ("4", "Swin-L", "22K", None, "segmenter_gflops"): (2483, _SWIN),
    ("8", "Swin-T", "1K", 224, "top1"): (81.3, "table 1 prints 81.3"),
    ("8", "Swin-B", "1K", 224, "top1"): (83.5, "table 1 prints 83.5"),
    ("10", "Swin-T", None, 224, "gmacs"): (4.49, "most likely table 1's 4.5 with a zero: 4.4906"),
}
