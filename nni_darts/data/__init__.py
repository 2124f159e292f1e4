"""What is learned from."""

from nni_darts.data.images import ArrayImages, ImageData, ImageShape, image_shape, load_images
from nni_darts.data.module import ImageDataModule
from nni_darts.data.text import TextData, load_text
from nni_darts.data.text_module import TextBatch, TextDataModule

__all__ = [
    'ArrayImages',
    'ImageData',
    'ImageDataModule',
    'ImageShape',
    'TextBatch',
    'TextData',
    'TextDataModule',
    'image_shape',
    'load_images',
    'load_text',
]
