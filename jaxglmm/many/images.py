"""Images of brains as responses: NIfTI and CIFTI, by nibabel (extra ``imaging``).

A row of the table is an image, a data set a voxel or grayordinate, whose label says
where it is: "23,41,30" (array indices), "CORTEX_LEFT:1204" (a vertex), "PUTAMEN_LEFT:
23,41,30", or the name of a parcel. Results find their way back by these labels, so that
parts, files and moderated fits have maps as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, DataError, NotApplicableError

ENDS = (".nii", ".nii.gz")
EXACT = ("float32", "float16", "int16", "uint16", "int8", "uint8")  # in four bytes
SAME_SPACE = 1e-3  # millimetres between affine transforms
STRUCTURE = "CIFTI_STRUCTURE_"


@dataclass(frozen=True)
class Space:
    """Where voxels are: an image's shape and affine transform, or a CIFTI's axis.

    image: the first one, from which maps take their header; shape: of one row, (I, J,
    K) or (G,); axis: of the grayordinates or parcels, None of a NIfTI image.
    """

    image: Any
    shape: tuple[int, ...]
    axis: Any = None

    def labels(self, where: np.ndarray) -> np.ndarray:
        """(D,) of the voxels that are True in ``where``, of this shape."""
        if self.axis is None:
            places = np.argwhere(where)
            return np.array([",".join(map(str, p)) for p in places.tolist()], object)
        keep = np.flatnonzero(where)
        axis = self.axis
        if not hasattr(axis, "vertex"):
            return np.asarray(axis.name, object)[keep]
        found = []
        for k in keep:
            name = str(axis.name[k]).removeprefix(STRUCTURE)
            if axis.vertex[k] >= 0:
                found.append(f"{name}:{axis.vertex[k]}")
            else:
                found.append(f"{name}:{','.join(map(str, axis.voxel[k].tolist()))}")
        return np.array(found, object)

    def places(self, labels: np.ndarray) -> np.ndarray:
        """(D,) positions of labels in a flat array of this shape.

        Raises:
            DataError: a label that is none of this image's.
        """
        every = self.labels(np.ones(self.shape, bool)).tolist()
        known = {label: k for k, label in enumerate(every)}
        found = [known.get(str(label), -1) for label in labels]
        bad = [str(x) for x, k in zip(labels, found, strict=True) if k < 0]
        if bad:
            size = " x ".join(map(str, self.shape))
            raise DataError(
                f"{len(bad)} of the {len(labels)} fits are of no voxel of this image "
                f"of {size}, the first {bad[0]!r}: pass one of the images that were "
                "fitted"
            )
        return np.array(found, int)

    def holds(self, other: Space) -> str:
        """Why the other is in another space; empty where it is in this one."""
        if other.shape != self.shape:
            return f"its shape is {other.shape}, that of the first {self.shape}"
        if (other.axis is None) != (self.axis is None):
            return "one is CIFTI, the other is not"
        if self.axis is not None and other.axis != self.axis:
            return "its grayordinates are others than those of the first"
        if self.axis is None:
            far = np.abs(other.image.affine - self.image.affine).max()
            if not far <= SAME_SPACE:
                return f"its affine transform differs from the first's by {far:.3g}"
        return ""


@dataclass(frozen=True)
class Images:
    """Images in one space, read an image at a time.

    files: each with its number of volumes, which are rows.
    """

    space: Space
    files: tuple[tuple[Any, int], ...]

    def __len__(self) -> int:
        return sum(volumes for _, volumes in self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Volumes; a whole image is read for them, as slices inflate all before."""
        for image, volumes in self.files:
            values = np.asanyarray(image.dataobj)
            if self.space.axis is None:
                values = np.moveaxis(
                    values.reshape(*self.space.shape, volumes, order="F"), -1, 0
                )
            yield from values

    @property
    def dtype(self) -> type:
        """Single precision where the files have no more."""
        kinds = {str(image.get_data_dtype()) for image, _ in self.files}
        return np.float32 if kinds <= set(EXACT) else np.float64


def is_image(value: Any) -> bool:
    """An image of nibabel's, or a path to one."""
    if isinstance(value, str | PathLike):
        return str(value).lower().endswith(ENDS)
    return all(hasattr(value, name) for name in ("dataobj", "get_fdata", "header"))


def are_images(value: Any) -> bool:
    """One or several, in a list or a column of paths."""
    if is_image(value):
        return True
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(is_image(x) for x in value)
    if getattr(value, "ndim", None) == 1 and str(getattr(value, "dtype", "")) in (
        "object",
        "str",
        "string",
    ):
        return len(value) > 0 and all(is_image(x) for x in np.asarray(value, object))
    return False


def opened(given: Any, name: str) -> Images:
    """Images as they are given: one with all rows as volumes, or one a row.

    Raises:
        DataError: a file that cannot be read, or images in different spaces.
        NotApplicableError: a path, and nibabel is not installed.
    """
    listed = [given] if is_image(given) else list(given)
    first, files = None, []
    for k, item in enumerate(listed):
        image = _loaded(item, name)
        space, volumes = _space(image, name)
        if first is None:
            first = space
        why = first.holds(space)
        if why:
            raise DataError(
                f"{name}: image {k} is in another space ({why}): resample it to the "
                "first image's, by nilearn's resample_to_img or the like"
            )
        files.append((image, volumes))
    assert first is not None
    return Images(first, tuple(files))


def _loaded(item: Any, name: str) -> Any:
    if not isinstance(item, str | PathLike):
        return item
    try:
        import nibabel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotApplicableError(
            f"{name}: reading {str(item)!r} needs the package nibabel ({error}): "
            "pip install nibabel"
        ) from error
    try:
        return nibabel.load(item)
    except Exception as error:  # of the file system, or of its readers
        raise DataError(f"{name}: {str(item)!r} cannot be read ({error})") from error


def _space(image: Any, name: str) -> tuple[Space, int]:
    """The space of an image, and how many volumes it has."""
    shape = tuple(int(s) for s in image.shape)
    if hasattr(image.header, "get_axis"):  # CIFTI: maps by grayordinates
        axis = image.header.get_axis(len(shape) - 1)
        if len(shape) != 2 or not (hasattr(axis, "voxel") or hasattr(axis, "voxels")):
            raise DataError(
                f"{name}: a CIFTI image has maps by grayordinates or parcels "
                f"(dscalar, dtseries, pscalar, ptseries); this one is {shape}"
            )
        return Space(image, shape[1:], axis), shape[0]
    if len(shape) == 4:
        return Space(image, shape[:3]), shape[3]
    if len(shape) == 3:
        return Space(image, shape), 1
    raise DataError(
        f"{name}: an image has three dimensions, or four with its volumes; this one "
        f"has the shape {shape}"
    )


def read(responses: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images as a matrix.

    Args:
        responses: as for ``fit_many``; of n rows.
        mask: an image or array of one volume (voxels to fit), or of n (which voxels
            each image has; elsewhere it is missing); None for all voxels that vary.

    Returns:
        (n, D) values, NaN where they are missing, and (D,) labels. Without a mask, or
        with one an image, of voxels that vary.

    Raises:
        DataError: images in different spaces; a mask of another shape, or of nothing.
    """
    images = opened(responses, "responses")
    masks = None if mask is None else _masks(mask, images)
    if masks is not None and len(masks) == 1:
        where = masks[0]
    else:
        where = _varying(images, masks)
    if not where.any():
        what = "the mask has no voxel" if len(masks or []) == 1 else "no voxel varies"
        raise DataError(f"{what}: there is nothing to fit")
    values = np.empty((len(images), int(where.sum())), images.dtype)
    for row, volume in enumerate(images):
        values[row] = volume[where]
        if masks is not None and len(masks) > 1:
            values[row][~masks[row][where]] = np.nan
    return values, images.space.labels(where)


def _masks(mask: Any, images: Images) -> list[np.ndarray]:
    """One mask, or n of them."""
    if are_images(mask):
        read = opened(mask, "mask")
        why = images.space.holds(read.space)
        if why:
            raise DataError(f"mask is in another space than the images ({why})")
        found = [np.isfinite(m) & (m != 0) for m in read]
    else:
        array = np.asarray(mask)
        if array.dtype.kind not in "bif":
            raise ArgumentError(
                f"mask={_arguments.shown(mask)} must be an image or an array of True "
                "and False"
            )
        array = np.isfinite(array) & (array != 0)
        shape = images.space.shape
        if array.shape == shape:
            found = [array]
        elif images.space.axis is None and array.shape == (*shape, len(images)):
            found = list(np.moveaxis(array, -1, 0))
        elif images.space.axis is not None and array.shape == (len(images), *shape):
            found = list(array)
        else:
            raise DataError(
                f"mask has the shape {array.shape}; an image has {shape}, and there "
                f"are {len(images)}"
            )
    if len(found) not in (1, len(images)):
        raise DataError(
            f"mask has {len(found)} volumes: one for all images, or one for each of "
            f"the {len(images)}"
        )
    return found


def _varying(images: Images, masks: list[np.ndarray] | None) -> np.ndarray:
    """Voxels with two different values that are not missing."""
    shape = images.space.shape
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for row, volume in enumerate(images):
        seen = ~np.isnan(volume)
        if masks is not None:
            seen &= masks[row]
        low = np.where(seen, np.minimum(low, volume), low)
        high = np.where(seen, np.maximum(high, volume), high)
    return low < high


def image_of(
    like: Any, labels: np.ndarray | None, maps: dict[str, np.ndarray], fill: float
) -> Any:
    """An image with a map (D,) for each name, in the space of ``like``.

    Raises:
        DataError: no image, or one with other voxels than the labels'.
        NotApplicableError: nibabel is not installed.
    """
    if not is_image(like):
        raise DataError(
            f"{_arguments.shown(like)} is no image: pass one of those that were "
            "fitted, an image of nibabel's or its path"
        )
    try:
        import nibabel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotApplicableError(
            f"maps need the package nibabel ({error}): pip install nibabel"
        ) from error
    space = opened(like, "like").space
    if labels is None:
        raise DataError("these fits are not of images: their data sets have no places")
    where = space.places(labels)
    flat = np.full((len(maps), int(np.prod(space.shape))), fill, np.float32)
    for row, values in enumerate(maps.values()):
        with np.errstate(over="ignore"):
            flat[row, where] = np.where(np.isnan(values), fill, values)
    if space.axis is not None:
        make: Callable[..., Any] = nibabel.Cifti2Image
        axes = nibabel.cifti2.ScalarAxis(list(maps)), space.axis
        return make(flat, header=axes)
    volume = np.moveaxis(flat.reshape(len(maps), *space.shape), 0, -1)
    header = space.image.header.copy()
    header.set_data_dtype(np.float32)
    header["cal_min"] = header["cal_max"] = 0  # how the images were to be shown
    found = nibabel.Nifti1Image(
        volume[..., 0] if len(maps) == 1 else volume, space.image.affine, header
    )
    found.header["descrip"] = "; ".join(maps)[:79].encode("ascii", "replace")
    return found
