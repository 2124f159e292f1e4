"""Data sets, their splits and their loaders."""

from nni_darts.data.base import ArrayImages, Description, ImageData, ImageShape
from nni_darts.data.images import image_shape, load_images
from nni_darts.data.module import ImageDataModule
from nni_darts.data.text import TextData, load_text
from nni_darts.data.text_module import TextBatch, TextDataModule

__all__ = [
    'ArrayImages',
    'Description',
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
