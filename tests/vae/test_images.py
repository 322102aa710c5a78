"""Image files: content, split, binarisation, and what is said where they are wrong or absent."""

import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vbpi_mix.errors import ImageDataError
from vbpi_mix.vae import images
from vbpi_mix.vae.images import SOURCES, ImageFile, binarise, load_images, parse_idx_images, read_image_file

MNIST_FILE = "mnist/train-images-idx3-ubyte.gz"
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def idx_content(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, 3]) + sizes + array.tobytes()


@pytest.fixture
def small(monkeypatch):
    """Content of a small file, and the known data set of that content."""
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = idx_content(array)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return array, content, ImageFile("small-idx3-ubyte", 2, md5, compressed_md5="0" * 32)


@pytest.mark.reference
def test_digits_are_split_and_binarised(require_reference):
    folder = require_reference(MNIST_FILE).parent
    data = load_images("mnist", folder, binarisation_seed=3)
    assert data.training.shape == (50_000, 28, 28)
    assert data.validation.shape == data.test.shape == (10_000, 28, 28)
    for part in (data.validation, data.test):
        assert ((part == 0) | (part == 1)).all()
    # Mean grey value of the 60,000 training images is known to be 0.1307.
    assert (data.training.float().mean().item() * 5 + data.validation.mean().item() * 255) / 6 / 255 == (
        pytest.approx(0.1307, abs=2e-4)
    )
    again, other = (load_images("mnist", folder, seed) for seed in (3, 4))
    assert torch.equal(again.test, data.test)
    assert torch.equal(again.validation, data.validation)
    assert not torch.equal(other.test, data.test)


def test_articles_of_clothing_are_those_of_debian(require_folder):
    folder = require_folder(FASHION_FOLDER, "dataset-fashion-mnist")
    grey = read_image_file("fashion-mnist", SOURCES["fashion-mnist"].test, folder)
    assert grey.shape == (10_000, 28, 28)
    # Without a folder the system's is found.
    np.testing.assert_array_equal(read_image_file("fashion-mnist", SOURCES["fashion-mnist"].test, None), grey)


def test_files_are_read_gzipped_or_not(tmp_path, small):
    array, content, file = small
    (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(content, mtime=1))
    np.testing.assert_array_equal(read_image_file("mnist", file, tmp_path), array)
    (tmp_path / f"{file.name}.gz").unlink()
    (tmp_path / file.name).write_bytes(content)
    np.testing.assert_array_equal(read_image_file("mnist", file, tmp_path), array)


def test_other_content_is_refused(tmp_path, small):
    _, content, file = small
    changed = content[:-1] + b"\xff"
    (tmp_path / file.name).write_bytes(changed)
    expected = rf"{file.name}: expected 2 images of mnist with MD5 {file.md5} .*, got .*delete the file"
    with pytest.raises(ImageDataError, match=expected):
        read_image_file("mnist", file, tmp_path)


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_damaged_archive_is_refused(tmp_path, small, cut):
    _, content, file = small
    (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(content)[:-cut])
    with pytest.raises(ImageDataError, match=r"cannot be read|got"):
        read_image_file("mnist", file, tmp_path)


def test_absent_files_are_named(tmp_path):
    name = r"train-images-idx3-ubyte or train-images-idx3-ubyte\.gz of fashion-mnist"
    for folder, found in ((tmp_path, "there is none"), (tmp_path / "absent", "there is no such folder")):
        with pytest.raises(ImageDataError, match=rf"{name}, but {found}; .*fashion-mnist.*--data-dir"):
            load_images("fashion-mnist", folder, 0)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ImageDataError, match="data set of mnist, fashion-mnist, got 'cifar'"):
        load_images("cifar", tmp_path, 0)


def test_the_cache_is_used_before_the_network(tmp_path, small, monkeypatch):
    import pooch

    array, content, file = small
    archive = gzip.compress(content, mtime=1)
    file = ImageFile(file.name, 2, file.md5, hashlib.md5(archive, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    folder = tmp_path / "vbpi-mix" / "mnist"
    folder.mkdir(parents=True)
    (folder / f"{file.name}.gz").write_bytes(archive)
    np.testing.assert_array_equal(read_image_file("mnist", file, None), array)


def test_an_unreachable_network_is_explained(tmp_path, monkeypatch):
    import pooch

    def refuse(*args, **kwargs):
        raise ConnectionError

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(pooch, "retrieve", refuse)
    names = r"train-images-idx3-ubyte\.gz and t10k-images-idx3-ubyte\.gz"
    with pytest.raises(ImageDataError, match=rf"neither in the cache .*ConnectionError.*{names}.*--data-dir"):
        load_images("mnist", None, 0)


@pytest.mark.parametrize("spoil", [lambda c: c[:10], lambda c: c + b"x", lambda c: b"\x01" + c[1:]])
def test_content_that_is_no_idx_file_of_images_is_refused(small, spoil):
    with pytest.raises(ImageDataError, match="expected an IDX file of images"):
        parse_idx_images(spoil(small[1]))


def test_binarisation_follows_the_grey_values():
    grey = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).expand(1, 40_000, 4)
    pixels = binarise(grey, torch.Generator().manual_seed(2), torch.float32)
    share = pixels.mean(dim=(0, 1))
    assert share[0] == 0.0
    assert share[3] == 1.0
    # Five standard errors of at most 0.0025.
    torch.testing.assert_close(share, grey[0, 0].float() / 255, rtol=0, atol=0.0125)


@pytest.mark.reference
def test_files_with_each_others_names_are_refused(require_reference, tmp_path):
    folder = require_reference(MNIST_FILE).parent
    shutil.copy(folder / "t10k-images-idx3-ubyte.gz", tmp_path / "train-images-idx3-ubyte.gz")
    with pytest.raises(ImageDataError, match="expected 60000 images of mnist with MD5 6bbc9ace"):
        images.load_images("mnist", tmp_path, 0)
