"""What is learned from."""

from nni_darts.data.images import ArrayImages, ImageData, ImageShape, image_shape, load_images
from nni_darts.data.module import ImageDataModule

__all__ = ['ArrayImages', 'ImageData', 'ImageDataModule', 'ImageShape', 'image_shape', 'load_images']
