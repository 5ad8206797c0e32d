"""Fill a folder with the freely licensed photographs that ship inside scikit-image and scikit-learn.

    python scripts/sample_library.py FOLDER

Nothing is downloaded, and a photo that is there already is left as it is.
"""

import dataclasses
import importlib.util
import shutil
import sys
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Sample:
    """A photograph inside an installed package."""

    package: str
    path: str
    credit: str


SAMPLES = (
    Sample("skimage", "data/astronaut.png", "Eileen Collins, by NASA; public domain"),
    Sample("skimage", "data/brick.png", "Bricks25 of CC0Textures; CC0"),
    Sample("skimage", "data/camera.png", "by Lav Varshney; CC0"),
    Sample("skimage", "data/chelsea.png", "Chelsea the cat, by Stefan van der Walt; CC0"),
    Sample("skimage", "data/clock_motion.png", "by Stefan van der Walt; public domain"),
    Sample("skimage", "data/coffee.png", "by Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0"),
    Sample("skimage", "data/coins.png", "Greek coins from Pompeii, Brooklyn Museum; no known copyright restrictions"),
    Sample("skimage", "data/grass.png", "Grass-01, by linolafett; CC0"),
    Sample("skimage", "data/gravel.png", "Gravel04 of CC0Textures; CC0"),
    Sample("skimage", "data/hubble_deep_field.jpg", "Hubble eXtreme Deep Field, by NASA; public domain"),
    Sample("skimage", "data/moon.png", "surface of the moon, from the samples of scikit-image"),
    Sample("skimage", "data/motorcycle_left.png", "Middlebury stereo benchmark, by Scharstein and others; CC0"),
    Sample("skimage", "data/motorcycle_right.png", "Middlebury stereo benchmark, by Scharstein and others; CC0"),
    Sample("skimage", "data/rocket.jpg", "Falcon 9 with DSCOVR, by SpaceX; public domain"),
    Sample("sklearn", "datasets/images/china.jpg", "by danielbuechele on Flickr; CC BY 2.0"),
    Sample("sklearn", "datasets/images/flower.jpg", "by vultilion on Flickr; CC BY 2.0"),
)


def write_samples(folder: Path) -> list[Path]:
    """Copy every sample into ``folder``, with CREDITS.txt beside them; returns the photos' paths in SAMPLES' order."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = [_copy(sample, folder) for sample in SAMPLES]
    credits_text = "".join(f"{photo.name}: {sample.credit}\n" for photo, sample in zip(photos, SAMPLES, strict=True))
    (folder / "CREDITS.txt").write_text(credits_text, encoding="utf-8")
    return photos


def _copy(sample: Sample, folder: Path) -> Path:
    source = _package_directory(sample.package) / sample.path
    photo = folder / source.name
    if not photo.exists() or photo.stat().st_size != source.stat().st_size:
        shutil.copyfile(source, photo)
    return photo


def _package_directory(package: str) -> Path:
    # Importing the package would take a second and more; its place is all that is needed.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package}, whose photographs make the sample library, is not installed: run ./scripts/start")
    return Path(spec.origin).parent


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: sample_library.py FOLDER")
    print(f"{len(write_samples(Path(sys.argv[1])))} sample photos are in {sys.argv[1]}")
