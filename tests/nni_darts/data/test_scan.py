"""Real oddities of folders of photos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nni_darts.data import load_images
from nni_darts.data.scan import list_images, open_image, unreadable
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings


def settings(path: Path) -> DataSettings:
    return DataSettings(name='folder', path=str(path), image_size=8)


def photo(path: Path, mode: str = 'RGB', **options: object) -> Path:
    """A picture whose left half is bright and right half dark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new('RGB', (64, 32), (20, 20, 20))
    ImageDraw.Draw(picture).rectangle((0, 0, 31, 31), fill=(220, 220, 220))
    picture.convert(mode).save(path, **options)
    return path


def photos(root: Path, count: int = 5) -> Path:
    for name in ('Bär', 'Äffchen'):
        for index in range(count):
            photo(root / name / f'{index}.jpg')
    return root


def test_every_readable_oddity_is_read(tmp_path: Path) -> None:
    root = photos(tmp_path / 'photos')
    photo(root / 'Bär' / 'DRUCK.JPG', 'CMYK')
    photo(root / 'Bär' / 'Grün.JPEG', 'L')
    photo(root / 'Bär' / 'palette.png', 'P')
    photo(root / 'Bär' / 'inner' / 'web.webp')
    Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)).save(root / 'Bär' / '16.png')
    data = load_images(settings(root))
    assert data.classes == ('Bär', 'Äffchen') and len(data.train) + len(data.test) == 15
    assert {tuple(image.shape) for part in (data.train, data.test) for image, _ in part} == {(3, 8, 8)}


def test_photos_are_upright_as_their_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90° to the right
    image = open_image(str(photo(tmp_path / 'a.jpg', exif=exif)))
    assert image.size == (32, 64)
    assert np.asarray(image)[8].mean() > 200 > 40 > np.asarray(image)[-8].mean()


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparency_becomes_white(mode: str, tmp_path: Path) -> None:
    picture = Image.new('RGBA', (8, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 4, 8))
    if mode == 'P':
        picture = Image.new('P', (8, 8), 1)
        picture.putpalette([255, 0, 0, 0, 0, 0])
        picture.paste(0, (4, 0, 8, 8))
        picture.info['transparency'] = 0
    picture.convert(mode).save(tmp_path / 'a.png', **({'transparency': 0} if mode == 'P' else {}))
    pixels = np.asarray(open_image(str(tmp_path / 'a.png')))
    assert (pixels[:, :4] == 0).all() and (pixels[:, 4:] == 255).all()


def test_one_list_of_all_that_cannot_be_read(tmp_path: Path) -> None:
    root = photos(tmp_path / 'photos')
    whole = (root / 'Bär' / '0.jpg').read_bytes()
    (root / 'Bär' / 'half.jpg').write_bytes(whole[: len(whole) // 2])
    (root / 'Äffchen' / 'empty.jpg').touch()
    (root / 'Äffchen' / 'page.png').write_text('<html>404</html>')
    Image.new('F', (4, 4)).save(root / 'Äffchen' / 'z.tiff')
    with pytest.raises(InputError, match='4 of 14 images cannot be used') as error:
        load_images(settings(root))
    text = str(error.value)
    for expected in (
        'half.jpg is not a readable image',
        'empty.jpg is not a readable image (the file is empty)',
        'page.png',
        'z.tiff has F',
    ):
        assert expected in text
    assert '\n' not in text


def test_hidden_files_are_skipped_and_other_formats_counted(tmp_path: Path) -> None:
    root = photos(tmp_path / 'photos')
    for name in ('._0.png', '.DS_Store', 'Thumbs.db', 'a.HEIC', 'b.heic', 'c.gif', 'LIESMICH'):
        (root / 'Bär' / name).write_bytes(b'\x00\x05\x16\x07')
    (root / 'Bär' / '.cache').mkdir()
    (root / 'Bär' / '.cache' / 'x.png').touch()
    listing = list_images(root)
    assert len(listing.files) == 10 and dict(listing.left_out) == {'.heic': 2, '.gif': 1, 'without an ending': 1}
    (note,) = load_images(settings(root)).notes
    assert '4 files are left out (2 .heic, 1 .gif, 1 without an ending); only files that end in .bmp' in note


def test_classes_that_a_side_lacks(tmp_path: Path) -> None:
    photos(tmp_path / 'train')
    photos(tmp_path / 'test')
    for file in (tmp_path / 'test' / 'Bär').iterdir():
        file.unlink()
    data = load_images(settings(tmp_path))
    assert {label for _, label in data.test} == {1}
    (tmp_path / 'train' / 'Zebra').mkdir()
    with pytest.raises(InputError, match='train has class folders without images: Zebra'):
        load_images(settings(tmp_path))
    (tmp_path / 'train' / 'Zebra').rmdir()
    photo(tmp_path / 'test' / 'Zebra' / '0.png')
    with pytest.raises(InputError, match='test has class folders that .*train lacks: Zebra'):
        load_images(settings(tmp_path))


def test_what_was_readable_is_remembered_until_it_changes(tmp_path: Path, cache: Path) -> None:
    files = [str(photo(tmp_path / 'photos' / f'{index}.png')) for index in range(3)]
    assert unreadable(files) == {}
    (stored,) = cache.iterdir()
    before = os.stat(files[1])
    damaged = Path(files[1]).read_bytes()[:-20]
    Path(files[1]).write_bytes(damaged + b'x' * 20)
    os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert unreadable(files) == {}  # size and time say that it is the same file
    os.utime(files[1])
    (fault,) = unreadable(files).values()
    assert '1.png is not a readable image' in fault
    stored.write_text('no JSON')
    assert len(unreadable(files)) == 1


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert unreadable([str(photo(tmp_path / 'a.png'))]) == {}


def test_a_name_of_other_bytes_can_be_printed(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b'/B\xe4r.png')
    Path(path).touch()
    (fault,) = unreadable([path]).values()
    assert 'is not a readable image (the file is empty)' in fault.encode().decode()


def test_unreadable_images_are_left_out_where_that_is_wanted(tmp_path: Path) -> None:
    root = photos(tmp_path / 'photos')
    (root / 'Bär' / 'empty.jpg').touch()
    (root / 'Äffchen' / 'page.png').write_text('<html>404</html>')
    with pytest.raises(InputError, match='2 of 12 images .*take them out, or leave them out with data.skip_unreadable: true'):
        load_images(settings(root))
    skipping = settings(root).model_copy(update={'skip_unreadable': True})
    data = load_images(skipping)
    assert len(data.train) + len(data.test) == 10 and data.facts[0] == '2 unreadable left out'
    for file in (root / 'Bär').iterdir():
        file.write_bytes(b'')
    with pytest.raises(InputError, match='no picture of the classes Bär can be read; .*0.jpg is not a readable image .the file is empty'):
        load_images(skipping)


def test_a_test_side_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    photos(tmp_path / 'train')
    photo(tmp_path / 'test' / 'Bär' / '0.png').write_bytes(b'')
    with pytest.raises(InputError, match='no picture to test on can be read'):
        load_images(settings(tmp_path).model_copy(update={'skip_unreadable': True}))
