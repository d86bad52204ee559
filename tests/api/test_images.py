"""NIfTI and CIFTI images as responses, and maps back, with nibabel itself."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import jaxglmm as jg
from jaxglmm import ArgumentError, DataError, NotApplicableError

nibabel = pytest.importorskip("nibabel")
pytestmark = pytest.mark.extras

N, SHAPE = 24, (4, 3, 2)
FORMULA = "bold ~ age + (1 | site)"
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"age": rng.normal(size=N), "site": [f"s{k}" for k in np.arange(N) % 6]}
    )


@pytest.fixture(scope="module")
def bold(people):
    """(I, J, K, n): nothing outside, where the first index is 0; one hole."""
    rng = np.random.default_rng(1)
    site = rng.normal(size=(*SHAPE, 6))[..., np.arange(N) % 6]
    slope = np.linspace(-1, 1, 24).reshape(SHAPE)[..., None]
    out = slope * people["age"].to_numpy() + site + rng.normal(size=(*SHAPE, N))
    out[0] = 0
    out[2, 1, 1, [3, 7]] = np.nan
    return out.astype(np.float32)


def nifti(values):
    return nibabel.Nifti1Image(values, AFFINE)


@pytest.fixture(scope="module")
def fits(people, bold):
    return jg.fit_many(FORMULA, people, responses=nifti(bold))


def test_voxels_that_vary_are_fitted_and_come_back_as_maps(people, bold, fits):
    assert len(fits) == 18
    assert fits.labels[0] == "1,0,0"
    assert fits.labels[-1] == "3,2,1"
    inside = bold[1:].reshape(18, N).T.astype(float)
    same = jg.fit_many(FORMULA, people, responses=inside)
    np.testing.assert_allclose(fits.coefficients, same.coefficients, rtol=1e-10)
    image = fits.to_image(nifti(bold), "age")
    assert image.shape == SHAPE
    np.testing.assert_array_equal(image.affine, AFFINE)
    z = image.get_fdata()
    assert np.isnan(z[0]).all()
    p = 2 * stats.norm.sf(np.abs(z[1:].ravel()))
    np.testing.assert_allclose(p, same.p_values[:, 1], rtol=1e-5)
    np.testing.assert_array_equal(
        np.sign(z[1:].ravel()), np.sign(same.se[:, 1] * 0 + same.coefficients[:, 1])
    )


def test_a_hole_is_a_row_less_for_its_voxel_alone(people, bold, fits):
    rows = people.assign(bold=bold[2, 1, 1].astype(float)).dropna()
    alone = jg.lmm(FORMULA, rows)
    own = fits[fits.labels.tolist().index("2,1,1")]
    np.testing.assert_allclose(own.coefficients, alone.coefficients, rtol=1e-6)
    assert own.design.n == N - 2


def test_maps_of_all_kinds_of_results(bold, fits, tmp_path):
    like = nifti(bold)
    several = fits.to_image(like, ["(Intercept)", "age"], "estimate", fill=0)
    assert several.shape == (*SHAPE, 2)
    found = several.get_fdata()
    assert (found[0] == 0).all()
    np.testing.assert_allclose(found[1:].reshape(18, 2), fits.coefficients, rtol=1e-6)
    for name, values in {
        "sigma": fits.sigma,
        "sd_(Intercept)|site": fits.sd[:, 0],
    }.items():
        found = fits.to_image(like, name, "estimate").get_fdata()
        np.testing.assert_allclose(found[1:].ravel(), values, rtol=1e-6)
    assert (fits.to_image(like, "status", "estimate").get_fdata()[1:] == 0).all()
    for what, values in {
        "se": fits.se[:, 1],
        "df": fits.df[:, 1],
        "t": fits.coefficients[:, 1] / fits.se[:, 1],
        "p": fits.p_values[:, 1],
        "p_adjusted": fits.p_adjusted()[:, 1],
    }.items():
        found = fits.to_image(like, "age", what).get_fdata()
        np.testing.assert_allclose(found[1:].ravel(), values, rtol=1e-6)
    fits.save(tmp_path / "fits.npz")  # a part, from a file, into an image on disk
    fits.to_image(like, "age").to_filename(tmp_path / "z.nii.gz")
    part = jg.load(tmp_path / "fits.npz")[5:9]
    again = part.to_image(tmp_path / "z.nii.gz", "age").get_fdata()
    assert np.isfinite(again).sum() == 4
    whole = fits.to_image(like, "age").get_fdata()
    np.testing.assert_array_equal(again[np.isfinite(again)], whole[np.isfinite(again)])


def test_paths_and_masks(people, bold, fits, tmp_path):
    paths = [tmp_path / f"{i}.nii.gz" for i in range(N)]
    for i, path in enumerate(paths):
        nifti(bold[..., i]).to_filename(path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2] = 1
    given = people.assign(file=[str(p) for p in paths])
    found = jg.fit_many(FORMULA, given, responses=given["file"], mask=nifti(mask))
    keep = [label.startswith("2,") for label in fits.labels]
    np.testing.assert_array_equal(found.coefficients, fits.coefficients[keep])
    has = np.ones((*SHAPE, N), bool)  # what each image covers
    has[3, 0, 0, 5:8] = False
    found = jg.fit_many(FORMULA, people, responses=nifti(bold), mask=has)
    holed = bold.copy()
    holed[3, 0, 0, 5:8] = np.nan
    same = jg.fit_many(FORMULA, people, responses=nifti(holed))
    np.testing.assert_array_equal(found.coefficients, same.coefficients)
    assert found.labels.tolist() == fits.labels.tolist()


def test_cifti(people, bold, fits, tmp_path):
    axis = nibabel.cifti2.BrainModelAxis
    cortex = axis.from_mask(np.array([1, 0, 1, 1], bool), name="CORTEX_LEFT")
    box = np.zeros(SHAPE, bool)
    box[1, 1] = True
    models = cortex + axis.from_mask(box, name="PUTAMEN_LEFT", affine=AFFINE)
    values = bold[1:].reshape(18, N).T[:, 6:11].copy()
    header = nibabel.cifti2.ScalarAxis([f"p{i}" for i in range(N)]), models
    image = nibabel.Cifti2Image(values, header=header)
    path = tmp_path / "bold.dscalar.nii"
    image.to_filename(path)
    found = jg.fit_many(FORMULA, people, responses=path)
    assert found.labels.tolist() == [
        *(f"CORTEX_LEFT:{k}" for k in (0, 2, 3)),
        "PUTAMEN_LEFT:1,1,0",
        "PUTAMEN_LEFT:1,1,1",
    ]
    np.testing.assert_allclose(found.coefficients, fits.coefficients[6:11], rtol=1e-10)
    maps = found.to_image(path, ["age", "(Intercept)"], "t")
    assert maps.header.get_axis(1) == models
    assert maps.header.get_axis(0).name.tolist() == ["age t", "(Intercept) t"]
    t = found.coefficients[:, 1] / found.se[:, 1]
    np.testing.assert_allclose(maps.get_fdata()[0], t, rtol=1e-6)
    maps.to_filename(tmp_path / "t.dscalar.nii")
    keep = np.array([True, False, True, False, True])
    part = jg.fit_many(FORMULA, people, responses=image, mask=keep)
    assert part.labels.tolist() == found.labels[keep].tolist()
    with pytest.raises(DataError, match="no voxel of this image"):
        found.to_image(nifti(bold), "age")


def test_what_is_none(people, bold, fits):
    image = nifti(bold)
    with pytest.raises(ArgumentError, match="mask="):
        jg.fit_many(FORMULA, people, responses=np.zeros((N, 2)), mask=bold[..., 0])
    with pytest.raises(DataError, match=r"mask has the shape \(2, 2\)"):
        jg.fit_many(FORMULA, people, responses=image, mask=np.ones((2, 2)))
    with pytest.raises(DataError, match="mask has no voxel"):
        jg.fit_many(FORMULA, people, responses=image, mask=np.zeros(SHAPE))
    with pytest.raises(DataError, match="no voxel varies"):
        jg.fit_many(FORMULA, people, responses=nifti(np.ones_like(bold)))
    moved = nibabel.Nifti1Image(bold[..., 1], AFFINE + np.eye(4))
    with pytest.raises(DataError, match="image 1 is in another space"):
        jg.fit_many(FORMULA, people, responses=[nifti(bold[..., 0]), moved])
    with pytest.raises(DataError, match="cannot be read"):
        jg.fit_many(FORMULA, people, responses=["nowhere.nii"] * N)
    with pytest.raises(DataError, match="24 rows"):
        jg.fit_many(FORMULA, people, responses=nifti(bold[..., 1:]))
    with pytest.raises(NotApplicableError, match="'dose'"):
        fits.to_image(image, "dose")
    with pytest.raises(NotApplicableError, match="'height'"):
        fits.to_image(image, "height", "estimate")
    with pytest.raises(NotApplicableError, match="'Z'"):
        fits.to_image(image, "age", "Z")
    with pytest.raises(DataError, match="is no image"):
        fits.to_image(bold, "age")
    plain = jg.fit_many(FORMULA, people, responses=np.nan_to_num(bold[1, 0].T))
    with pytest.raises(DataError, match="not of images"):
        plain.to_image(image, "age")


def test_far_out_a_z_has_the_tail_of_its_t():
    from doors import equivalent_z

    t, df = np.array([-60.0, 0.0, 2.5, 900.0, 3.0]), np.array([1e6, 5, 12, 900, np.inf])
    z = equivalent_z(t, df)
    assert z[1] == 0
    assert z[4] == 3
    assert stats.norm.sf(z[2]) == pytest.approx(stats.t.sf(2.5, 12))
    assert -60 < z[0] < -59.9
    edge = stats.t.isf([1e-280, 1e-310], 100)  # exact, and by the approximation
    assert np.diff(equivalent_z(edge, np.full(2, 100.0)))[0] == pytest.approx(
        np.diff(-special.ndtri([1e-280, 1e-310]))[0], abs=0.1
    )
    assert z[3] < 900
