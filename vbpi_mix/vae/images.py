"""MNIST and FashionMNIST as binary images: 50,000 to train on, 10,000 to validate, 10,000 to test.

A grey value v in 0..255 is the probability v / 255 of a 1. Training images are drawn anew in every step;
validation and test images are drawn once, from a recorded seed, so that all models face the same ones.

Files are checked by the MD5 of their uncompressed content: how they were compressed does not matter.

References:
    LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition (MNIST).
    Xiao, Rasul & Vollgraf (2017), Fashion-MNIST: a novel image dataset for benchmarking.
"""

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from vbpi_mix.errors import ImageDataError

NUM_TRAINING = 50_000
_HEADER = 16
_MAGIC = bytes([0, 0, 8, 3])


@dataclass(frozen=True)
class ImageFile:
    """An IDX file of images.

    Attributes:
        name: file name, without ``.gz``.
        num_images: images in it.
        md5: hexadecimal MD5 of the uncompressed content.
        compressed_md5: hexadecimal MD5 of the file ``.gz`` at its origin.
    """

    name: str
    num_images: int
    md5: str
    compressed_md5: str


@dataclass(frozen=True)
class ImageSource:
    """Where a data set comes from.

    Attributes:
        url: folder on the network with both files, compressed.
        cure: how else to get the files.
        system_folder: where a package of the operating system puts them; None: there is none.
        train: training and validation images.
        test: test images.
    """

    url: str
    cure: str
    system_folder: Path | None
    train: ImageFile
    test: ImageFile


SOURCES = {
    "mnist": ImageSource(
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        cure="get them on a machine with a network",
        system_folder=None,
        train=ImageFile(
            "train-images-idx3-ubyte",
            60_000,
            md5="6bbc9ace898e44ae57da46a324031adb",
            compressed_md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        test=ImageFile(
            "t10k-images-idx3-ubyte",
            10_000,
            md5="2646ac647ad5339dbf082846283269ea",
            compressed_md5="9fb629c4189551a2d022fa330f9573f3",
        ),
    ),
    "fashion-mnist": ImageSource(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        cure="on Debian, apt-get install dataset-fashion-mnist",
        system_folder=Path("/usr/share/datasets/fashion-mnist"),
        train=ImageFile(
            "train-images-idx3-ubyte",
            60_000,
            md5="f4a8712d7a061bf5bd6d2ca38dc4d50a",
            compressed_md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        test=ImageFile(
            "t10k-images-idx3-ubyte",
            10_000,
            md5="8181f5470baa50b63fa0f6fddb340f0a",
            compressed_md5="bef4ecab320f06d8554ea6380940ec79",
        ),
    ),
}
"""The known data sets by name."""


@dataclass(frozen=True)
class ImageData:
    """The images of a data set.

    Attributes:
        training: grey values, 0 to 255.
        grey_validation: the same of the images set aside to validate.
        grey_test: the same of the images to test.
        binarisation_seed: seed of the one binarisation of these two.
    """

    training: UInt8[torch.Tensor, "training height width"]
    grey_validation: UInt8[torch.Tensor, "validation height width"]
    grey_test: UInt8[torch.Tensor, "test height width"]
    binarisation_seed: int

    @cached_property
    def validation(self) -> Float[torch.Tensor, "validation height width"]:
        """Pixels 0 or 1, drawn once."""
        return self._drawn_once(self.grey_validation, 0)

    @cached_property
    def test(self) -> Float[torch.Tensor, "test height width"]:
        """Pixels 0 or 1, drawn once."""
        return self._drawn_once(self.grey_test, 1)

    def _drawn_once(
        self, grey: UInt8[torch.Tensor, "image height width"], stream: int
    ) -> Float[torch.Tensor, "image height width"]:
        seed = int(np.random.SeedSequence(self.binarisation_seed).generate_state(2)[stream])
        return binarise(grey, torch.Generator().manual_seed(seed), torch.float32)


def load_images(dataset: str, data_dir: Path | None, binarisation_seed: int) -> ImageData:
    """Images of a data set, split 50,000 / 10,000 / 10,000; the last 10,000 of the training file validate.

    Args:
        dataset: a name in `SOURCES`.
        data_dir: folder with the IDX files, gzipped or not; None: that of a Debian package, where it is
            installed, else the user's cache, filled from the network.
        binarisation_seed: seed of the one binarisation of the validation and test images.

    Raises:
        ImageDataError: The data set is unknown, or a file is absent, cannot be fetched or has other content.
    """
    if dataset not in SOURCES:
        raise ImageDataError(f"expected a data set of {', '.join(SOURCES)}, got {dataset!r}")
    source = SOURCES[dataset]
    train = torch.from_numpy(read_image_file(dataset, source.train, data_dir))
    test = torch.from_numpy(read_image_file(dataset, source.test, data_dir))
    return ImageData(train[:NUM_TRAINING], train[NUM_TRAINING:], test, binarisation_seed)


def binarise(
    grey: UInt8[torch.Tensor, "image height width"], generator: torch.Generator, dtype: torch.dtype
) -> Float[torch.Tensor, "image height width"]:
    """Pixels 0 or 1, each 1 with probability grey value / 255."""
    uniform = torch.rand(grey.shape, generator=generator, dtype=torch.float32, device=grey.device)
    return (uniform * 255.0 < grey).to(dtype)


def read_image_file(
    dataset: str, file: ImageFile, data_dir: Path | None
) -> UInt8[np.ndarray, "image height width"]:
    """Grey values of the images of one file, once its content has been checked.

    Raises:
        ImageDataError: The file is absent, cannot be fetched, or has other content than the data set's.
    """
    path = _find(dataset, file, data_dir)
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageDataError(
            f"{path}: expected images of {dataset}, but it cannot be read ({error})"
        ) from None
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != file.md5:
        raise ImageDataError(
            f"{path}: expected {file.num_images} images of {dataset} with MD5 {file.md5} (uncompressed), "
            f"got {md5}; delete the file and get it again: {SOURCES[dataset].cure}"
        )
    return parse_idx_images(content)


def parse_idx_images(content: bytes) -> UInt8[np.ndarray, "image height width"]:
    """Images in the content of an IDX file: magic number, three big-endian sizes, then bytes.

    Raises:
        ImageDataError: It is no such file, or is cut short.
    """
    sizes = [int.from_bytes(content[start : start + 4], "big") for start in range(4, _HEADER, 4)]
    if content[:4] != _MAGIC or len(content) != _HEADER + math.prod(sizes):
        raise ImageDataError(
            f"expected an IDX file of images (magic number {_MAGIC.hex()}, then as many bytes as its header "
            f"announces), got {len(content)} bytes that begin with {content[:4].hex()}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=_HEADER).reshape(sizes).copy()


def _find(dataset: str, file: ImageFile, data_dir: Path | None) -> Path:
    """Path of a file in the given folder, else in the system's, else in the cache, fetched if need be."""
    source = SOURCES[dataset]
    folder = source.system_folder if data_dir is None else data_dir
    names = (file.name, f"{file.name}.gz")
    if folder is not None:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    if data_dir is not None:
        found = "there is none" if data_dir.is_dir() else "there is no such folder"
        raise ImageDataError(
            f"{data_dir}: expected the file {' or '.join(names)} of {dataset}, but {found}; "
            f"{source.cure}, or name another folder with --data-dir"
        )
    return _fetch(dataset, file)


def _fetch(dataset: str, file: ImageFile) -> Path:
    """Path of a file in the user's cache, fetched and checked where it is not there yet."""
    import pooch

    source = SOURCES[dataset]
    cache = pooch.os_cache("vbpi-mix") / dataset
    try:
        path = pooch.retrieve(
            url=f"{source.url}{file.name}.gz",
            known_hash=f"md5:{file.compressed_md5}",
            fname=f"{file.name}.gz",
            path=cache,
        )
    except (OSError, ValueError) as error:
        wanted = " and ".join(f"{known.name}.gz" for known in (source.train, source.test))
        raise ImageDataError(
            f"the images of {dataset} are neither in the cache {cache} nor could be fetched from "
            f"{source.url} ({type(error).__name__}); they are the files {wanted}, gzipped or not: "
            f"{source.cure}, or name their folder with --data-dir"
        ) from None
    return Path(path)
