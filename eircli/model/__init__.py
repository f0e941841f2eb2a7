"""The segmentation network: backbones and a DeepLabV3 head whose classifiers grow."""
